"""Commands from a simulated scan to figures: files, output and messages."""

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from ptycho_backend import api, plots
from ptycho_backend.cli import main
from ptycho_backend.commands import results
from ptycho_backend.commands.figures import network_comparison, number, seconds
from ptycho_backend.config import TrainingConfig, from_dict
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.product import read_product
from ptycho_backend.data.readers import load_scan
from ptycho_backend.engines.registry import missing_packages
from ptycho_backend.quality.metrics import Comparison

CORE = {"wts.h5.zip", "config.yaml", "metrics.csv", "summary.json", "checkpoints"}
PICTURES = {"object.png", "probe.png", "comparison.png", "assessment.png"}
IMAGE = {"reconstruction.h5", "evaluation.json", "assessment.json", "report.html"} | PICTURES
COMPARED = {"baseline.png"}  # with --compare only
PNG = b"\x89PNG\r\n"


def names(folder):
    return {item.name for item in folder.iterdir()}


class TestSimulate:
    def test_scan_follows_the_options(self, ptychopinn, tmp_path):
        target = tmp_path / "scan.npz"
        argv = ("--N", 32, "--n_positions", 16, "--photons_per_pattern", "2e4", "--modes", 2, "--bad_pixels", 0.01)
        outcome = ptychopinn("simulate", "--output", target, *argv)
        assert outcome.status == 0
        scan = load_scan(target)
        assert (len(scan), scan.N, scan.probe.shape, scan.measurement) == (16, 32, (2, 32, 32), "counts")
        assert 0 < (~scan.mask).sum() < 40
        assert "16 of 32×32 px" in outcome.out
        assert f"{(~scan.mask).sum()} (" in outcome.out
        assert scan.data_hash() in outcome.out
        assert f"Next: ptychopinn train {target}" in outcome.out

    def test_settings_from_a_file(self, ptychopinn, tmp_path):
        (tmp_path / "settings.yaml").write_text("N: 32\nn_positions: 5\nseed: 7\n", encoding="utf-8")
        argv = ("--config", tmp_path / "settings.yaml", "--n_positions", 4)
        assert ptychopinn("simulate", "--output", tmp_path / "scan.npz", *argv).status == 0
        scan = load_scan(tmp_path / "scan.npz")
        assert (scan.N, len(scan), scan.attributes["seed"]) == (32, 4, 7)


class TestTrain:
    def test_written_files(self, trained):
        folder, _ = trained
        assert names(folder) == CORE | IMAGE | COMPARED | {"losses.png"}
        assert all((folder / name).read_bytes().startswith(PNG) for name in names(folder) if name.endswith(".png"))

    def test_shown_figures_match_the_files(self, trained):
        folder, outcome = trained
        summary = json.loads((folder / "summary.json").read_text())
        figures = json.loads((folder / "evaluation.json").read_text())
        assert f"{summary['half_deviance']:.4g} half-deviance per pixel, on held-out patterns" in outcome.out
        assert f"{summary['shot_noise_floor']:.4g}" in outcome.out
        for name, key in (("network", "network"), ("no network", "no_network")):
            (line,) = (line for line in outcome.out.splitlines() if line.startswith(f"{name}  "))
            scores = figures[key]
            assert f"{scores['amplitude_psnr_db']:.1f} dB  {scores['amplitude_ssim']:.3f}" in line
            assert f"{scores['phase_psnr_db']:.1f} dB  {scores['phase_ssim']:.3f}" in line
            period = f"{scores['resolution_m'] * 1e9:.3g} nm"
            assert line.rstrip().endswith(f"{scores['frc_half']:.2f}  {period}")
        assert "patterns/s" in outcome.out
        assert f"Written to {folder}:" in outcome.out

    def test_assessment_is_shown_and_written(self, trained):
        folder, outcome = trained
        found = json.loads((folder / "assessment.json").read_text())
        assert len(found["residual_per_pattern"]) == 64
        assert f"{found['residual']:.4g} half-deviance per pixel" in outcome.out
        assert f"differ from the image by {found['disagreement']:.1%}" in outcome.out
        assert f"agree up to {found['halves']['resolution']:.2f} of Nyquist" in outcome.out
        assert outcome.out.count("Warning: ") == len(found["warnings"])

    def test_written_configuration(self, trained):
        values = yaml.safe_load((trained[0] / "config.yaml").read_text())
        config = from_dict(TrainingConfig, values["training"])
        assert (config.model.N, config.nepochs, config.backend) == (32, 1, "pytorch")

    def test_one_log_line_per_epoch_without_a_terminal(self, trained):
        lines = [line for line in trained[1].err.splitlines() if line.startswith("epoch ")]
        assert len(lines) == 1
        assert lines[0].startswith("epoch 1/1: poisson_train_loss ")
        assert "poisson_val_loss" in lines[0]
        assert "\x1b" not in trained[1].err + trained[1].out

    def test_reconstruction_is_a_product_in_photons(self, trained, scan):
        product = read_product(trained[0] / "reconstruction.h5")
        np.testing.assert_allclose(product.positions_px, scan.positions_px, atol=1e-9)
        assert product.pixel_size_m == scan.pixel_size_m
        assert len(product.costs) == 1
        mean_photons = float(scan.patterns.sum() / len(scan))
        assert np.sum(np.abs(product.probe) ** 2) == pytest.approx(mean_photons, rel=1e-4)
        assert product.attributes["scan"]["seed"] == 3
        assert product.attributes["backend"] == "pytorch"
        with h5py.File(trained[0] / "reconstruction.h5") as file:
            assert file["ptychopinn/coverage"].shape == product.obj.shape

    def test_configuration_of_a_run_repeats_it(self, trained, scan_file, ptychopinn, tmp_path):
        argv = ("--config", trained[0] / "config.yaml", "--no-reconstruct", "--output", tmp_path / "again")
        outcome = ptychopinn("train", scan_file, *argv)
        assert outcome.status == 0, outcome.err
        assert names(tmp_path / "again") == CORE | {"losses.png", "report.html"}
        for name in ("config.yaml", "metrics.csv"):
            assert (tmp_path / "again" / name).read_bytes() == (trained[0] / name).read_bytes()

    def test_no_scores_without_known_object(self, file_without_object, ptychopinn, quick, needs_pytorch, tmp_path):
        outcome = ptychopinn("train", file_without_object, "--output", tmp_path / "run", *quick)
        assert outcome.status == 0, outcome.err
        assert names(tmp_path / "run") == CORE | IMAGE - {"evaluation.json", "comparison.png"} | {"losses.png"}
        assert "PSNR" not in outcome.out

    def test_overwrite_removes_earlier_results(self, scan_file, ptychopinn, quick, needs_pytorch, tmp_path):
        for name in (*IMAGE, *COMPARED, "wts.h5.zip", "notes.txt"):
            (tmp_path / name).write_text("earlier", encoding="utf-8")
        argv = ("train", scan_file, "--output", tmp_path, "--overwrite", "--no-reconstruct", *quick)
        assert ptychopinn(*argv).status == 0
        assert names(tmp_path) == CORE | {"losses.png", "report.html", "notes.txt"}
        assert (tmp_path / "notes.txt").read_text() == "earlier"

    def test_failed_run_keeps_earlier_results(self, scan_file, ptychopinn, tmp_path):
        (tmp_path / "wts.h5.zip").write_text("earlier", encoding="utf-8")
        argv = ("--output", tmp_path, "--overwrite", "--training.model.N", 64)
        assert ptychopinn("train", scan_file, *argv).status == 1
        assert names(tmp_path) == {"wts.h5.zip"}
        assert (tmp_path / "wts.h5.zip").read_text() == "earlier"

    def test_failed_picture_is_a_warning(self, scan_file, ptychopinn, quick, needs_pytorch, tmp_path, monkeypatch):
        def broken(*_, **__):
            raise ValueError("no font")

        for name in ("plot_object", "plot_probe", "plot_losses", "plot_comparison", "plot_assessment"):
            monkeypatch.setattr(plots, name, broken)
        outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", *quick)
        assert outcome.status == 0
        assert names(tmp_path / "run") == CORE | IMAGE - PICTURES
        assert outcome.err.count("could not be drawn: ValueError: no font") == 5

    def test_failure_after_training_keeps_the_model(
        self, scan_file, ptychopinn, quick, needs_pytorch, tmp_path, monkeypatch
    ):
        def broken(*_, **__):
            raise MemoryError

        monkeypatch.setattr(results, "prepare", broken)
        outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", *quick)
        assert outcome.status == 1
        assert "MemoryError" in outcome.err
        assert f"saved in '{tmp_path / 'run'}': config.yaml, metrics.csv, summary.json, wts.h5.zip" in outcome.err
        assert names(tmp_path / "run") == CORE

    def test_quiet_shows_nothing(self, scan_file, ptychopinn, quick, needs_pytorch, tmp_path):
        argv = ("--output", tmp_path / "run", "--quiet", "--no-reconstruct", *quick)
        assert ptychopinn("train", scan_file, *argv)[:] == (0, "", "")

    def test_one_warning_per_inert_option(self, scan_file, ptychopinn, quick, needs_pytorch, tmp_path):
        argv = ("--output", tmp_path / "run", "--training.model.object_big=false", "--no-reconstruct", *quick)
        outcome = ptychopinn("train", scan_file, *argv)
        assert outcome.err.count("warning: object_big has no effect: gridsize=1 has nothing to merge\n") == 1
        assert "InertOptionWarning" not in outcome.err

    def test_resize_crops_the_patterns(self, ptychopinn, quick, needs_pytorch, tmp_path):
        assert ptychopinn("simulate", "--output", tmp_path / "s.npz", "--N", 48, "--n_positions", 9).status == 0
        argv = ("--output", tmp_path / "run", "--resize", 32, "--no-reconstruct", *quick)
        assert ptychopinn("train", tmp_path / "s.npz", *argv).status == 0
        assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["training"]["model"]["N"] == 32


class TestReconstruct:
    @pytest.fixture(scope="class")
    def image(self, trained, scan_file, ptychopinn, tmp_path_factory):
        folder = tmp_path_factory.mktemp("images") / "image"
        argv = ("--model", trained[0], "--output", folder, "--execution.precision=32-true")
        outcome = ptychopinn("reconstruct", scan_file, *argv)
        assert outcome.status == 0, outcome.err
        return folder, outcome

    def test_written_files(self, image):
        assert names(image[0]) == IMAGE

    def test_image_equals_the_image_of_train(self, image, trained):
        ours, theirs = (read_product(folder / "reconstruction.h5") for folder in (image[0], trained[0]))
        np.testing.assert_allclose(ours.obj, theirs.obj, atol=1e-5)
        assert ours.obj_origin_px == theirs.obj_origin_px
        np.testing.assert_array_equal(ours.costs, theirs.costs)

    def test_one_image_without_compare(self, image):
        folder, outcome = image
        assert "64 patterns" in outcome.out
        assert "on cpu, from the prediction of a network" in outcome.out
        assert "no network " not in outcome.out
        assert set(json.loads((folder / "evaluation.json").read_text())) == {"truth", "network"}
        assert outcome.err.count(", error ") == 3  # the image, and one for each half of the patterns

    def test_flat_start_needs_no_framework(self, scan_file, scan, tmp_path):
        code = (
            "import sys; from ptycho_backend.cli import main; status = main(sys.argv[1:]); "
            "assert not {'torch', 'tensorflow', 'keras', 'lightning'} & set(sys.modules); sys.exit(status)"
        )
        argv = [sys.executable, "-c", code, "reconstruct", scan_file, "--output", tmp_path / "flat", "--device", "cpu"]
        done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "on cpu, from a flat object" in done.stdout
        assert "not compared: the image started from a flat object, without a network" in " ".join(done.stdout.split())
        assert names(tmp_path / "flat") == IMAGE
        product = read_product(tmp_path / "flat/reconstruction.h5")
        assert "model" not in product.attributes
        assert len(product.costs) == 0
        np.testing.assert_allclose(product.obj, api.reconstruct(scan, device="cpu").obj, atol=1e-6)
        figures = json.loads((tmp_path / "flat/evaluation.json").read_text())
        assert set(figures) == {"truth", "no_network"}
        assert figures["no_network"]["phase_psnr_db"] > 25
        assessment = json.loads((tmp_path / "flat/assessment.json").read_text())
        assert assessment["disagreement"] is None
        assert assessment["training_domain"] is None
        assert assessment["halves"]["resolution"] > 0.4

    def test_compare_of_a_flat_start_adds_the_shipped_network(self, scan_file, ptychopinn, needs_pytorch, tmp_path):
        argv = (
            "--compare",
            "--backend",
            "pytorch",
            "--inference.probe_iterations=0",
            "--inference.half_datasets=false",
        )
        outcome = ptychopinn("reconstruct", scan_file, "--output", tmp_path / "image", *argv)
        assert outcome.status == 0, outcome.err
        assert names(tmp_path / "image") == IMAGE | COMPARED
        figures = json.loads((tmp_path / "image/evaluation.json").read_text())
        assert list(figures) == ["truth", "no_network", "network", "comparison"]

    def test_network_without_an_engine_is_refused(self, scan_file, ptychopinn, fails_with, tmp_path):
        argv = ("reconstruct", scan_file, "--output", tmp_path / "image", "--backend", "numpy", "--start", "network")
        fails_with(ptychopinn(*argv), 1, "BackendNotInstalledError", "ptychopinn[torch]")
        assert list(tmp_path.iterdir()) == []

    def test_number_of_iterations(self, image, trained, scan_file, ptychopinn, tmp_path):
        argv = ("--model", trained[0] / "wts.h5.zip", "--inference.iterations", 3, "--output", tmp_path / "three")
        outcome = ptychopinn("reconstruct", scan_file, *argv, "--execution.precision=32-true")
        assert outcome.status == 0, outcome.err
        assert "iterations: 3 of 3" in outcome.err
        refined, plain = (read_product(folder / "reconstruction.h5") for folder in (tmp_path / "three", image[0]))
        assert refined.attributes["inference"]["iterations"] == 3
        assert np.abs(refined.obj - plain.obj).max() > 1e-2

    @pytest.mark.skipif(bool(missing_packages("tensorflow")), reason="TensorFlow is not installed")
    def test_other_engine_gives_the_same_image(self, trained, scan_file, ptychopinn, image, tmp_path):
        argv = ("--model", trained[0], "--output", tmp_path / "twin", "--backend=tensorflow")
        outcome = ptychopinn("reconstruct", scan_file, *argv, "--execution.precision=32-true")
        assert outcome.status == 0, outcome.err
        assert "(tensorflow)" in outcome.out
        twin = read_product(tmp_path / "twin/reconstruction.h5").obj
        np.testing.assert_allclose(twin, read_product(image[0] / "reconstruction.h5").obj, atol=1e-2)


@pytest.mark.skipif(bool(missing_packages("tensorflow")), reason="TensorFlow is not installed")
def test_train_with_tensorflow(scan_file, ptychopinn, quick, tmp_path):
    options = [option for option in quick if not option.startswith("--backend")]
    argv = ("--backend=tensorflow", "--output", tmp_path / "run", *options)
    outcome = ptychopinn("train", scan_file, *argv)
    assert outcome.status == 0, outcome.err
    assert names(tmp_path / "run") == CORE | IMAGE | {"losses.png"}
    assert [line[:10] for line in outcome.err.splitlines() if line.startswith("epoch")] == ["epoch 1/1:"]


class TestEvaluate:
    def test_scores_against_a_scan_equal_those_of_train(self, trained, scan_file, ptychopinn, tmp_path):
        argv = (trained[0] / "reconstruction.h5", scan_file, "--compare", "--output", tmp_path / "scores")
        outcome = ptychopinn("evaluate", *argv)
        assert outcome.status == 0, outcome.err
        assert names(tmp_path / "scores") == {"evaluation.json", "comparison.png", "report.html"}
        ours = json.loads((tmp_path / "scores/evaluation.json").read_text())
        theirs = json.loads((trained[0] / "evaluation.json").read_text())
        for mine, its in (("reconstruction", "network"), ("no_network", "no_network")):
            assert ours[mine]["phase_psnr_db"] == pytest.approx(theirs[its]["phase_psnr_db"], abs=1e-3)
        assert "removed shift" in outcome.out

    def test_only_the_image_is_compared_unless_asked(self, trained, scan_file, ptychopinn):
        outcome = ptychopinn("evaluate", trained[0] / "reconstruction.h5", scan_file)
        assert outcome.status == 0, outcome.err
        assert "reconstruction " in outcome.out
        assert "no network" not in outcome.out

    def test_image_against_itself(self, trained, ptychopinn, tmp_path):
        image = trained[0] / "reconstruction.h5"
        outcome = ptychopinn("evaluate", image, image, "--output", tmp_path / "same")
        assert outcome.status == 0
        figures = json.loads((tmp_path / "same/evaluation.json").read_text())
        assert (list(figures), figures["truth"]) == (["truth", "reconstruction"], str(image))
        scores = figures["reconstruction"]
        assert scores["phase_ssim"] == pytest.approx(1.0)
        assert scores["frc_half"] == 1.0
        assert scores["shift_px"] == pytest.approx([0.0, 0.0], abs=1e-3)
        assert "no network" not in outcome.out

    def test_no_output_writes_no_file(self, trained, scan_file, ptychopinn, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert ptychopinn("evaluate", trained[0] / "reconstruction.h5", scan_file).status == 0
        assert names(tmp_path) == set()


class TestInfo:
    def test_scan(self, scan_file, scan, ptychopinn):
        out = ptychopinn("info", scan_file).out
        counts = scan.patterns.sum(axis=(1, 2))
        assert f"{counts.mean():.3g} (from {counts.min():.3g} to {counts.max():.3g})" in out
        assert "64 of 32×32 px, uint16, counts" in out
        assert scan.data_hash() in out
        assert f"{scan.obj.shape[0]} × {scan.obj.shape[1]} px" in out

    @pytest.mark.parametrize("name", ["", "wts.h5.zip"])
    def test_model(self, name, trained, scan, ptychopinn):
        out = ptychopinn("info", trained[0] / name).out
        model = api.load_model(trained[0], "pytorch")
        weights = model.get_weights()
        n = sum(weights[key].size for key in weights if key not in ("probe", "log_scale"))
        assert f"unet, pinn, {n:,} parameters" in out
        assert "trained by            pytorch, seed 0" in out
        assert "torch 2" in out
        assert scan.data_hash() in out

    def test_reconstruction(self, trained, ptychopinn):
        outcome = ptychopinn("info", trained[0] / "reconstruction.h5")
        product = read_product(trained[0] / "reconstruction.h5")
        assert outcome.out.startswith("Reconstruction, ")
        assert f"{product.obj.shape[0]} × {product.obj.shape[1]} px" in outcome.out
        assert f"{product.costs[-1]:.4g} after 1 epochs" in outcome.out


class TestFigures:
    @staticmethod
    def scored(amplitude, phase):
        return Comparison(amplitude, 0.5, phase, 0.5, 0.5, 0.5, 0.5, (0, 0), (0, 0), 1.0, (0, 0, 16, 16))

    @pytest.mark.parametrize(
        ("network", "words"),
        [
            ((31.0, 21.0), ""),
            ((29.0, 19.0), "in amplitude or phase"),
            ((30.0, 20.0), "in amplitude or phase"),
            ((29.0, 21.0), "in the amplitude."),
            ((31.0, 19.0), "in the phase."),
            ((float("nan"), 21.0), "in the amplitude."),
        ],
    )
    def test_sentence_for_a_network_below_its_baseline(self, network, words):
        sentence = network_comparison(self.scored(*network), self.scored(30.0, 20.0))
        assert words in sentence
        assert bool(sentence) == bool(words)

    def test_sentence_is_shown_and_written(self, trained, scan_file, ptychopinn, tmp_path, monkeypatch):
        perfect = type("Perfect", (), {"start": "flat", "image": lambda self, on_event: truth_of(load_scan(scan_file))})
        monkeypatch.setattr(results, "other_start", lambda *_: perfect())
        argv = ("--model", trained[0], "--output", tmp_path / "image", "--compare")
        outcome = ptychopinn("reconstruct", scan_file, *argv)
        assert "The network does not beat the reconstruction without a network" in outcome.out
        assert "does not beat" in json.loads((tmp_path / "image/evaluation.json").read_text())["comparison"]

    def test_missing_numbers(self):
        assert (number(float("nan"), ".1f"), number(None, ".1f"), number(float("inf"), ".1f")) == ("n/a",) * 3
        assert number(1.26, ".1f") == "1.3"

    def test_durations(self):
        assert [seconds(value) for value in (0.04, 59.94, 61.0, 3600.0, 7325.0)] == [
            "0.0 s",
            "59.9 s",
            "1 min 1 s",
            "1 h 0 min",
            "2 h 2 min",
        ]


def truth_of(scan):
    from ptycho_backend.data.image import Image

    return Image(scan.obj, np.ones(scan.obj.shape, np.float32), scan.obj_origin_px)


class TestMessages:
    def test_unexpected_failure_is_one_line(self, scan_file, ptychopinn, monkeypatch):
        def broken(*_):
            raise RuntimeError("first line\nsecond line")

        monkeypatch.setattr("ptycho_backend.commands.info.described", broken)
        outcome = ptychopinn("info", scan_file)
        assert outcome.status == 1
        assert outcome.err == "RuntimeError: first line (run again with --debug for the traceback)\n"
        outcome = ptychopinn("info", scan_file, "--debug")
        assert outcome.status == 1
        assert "Traceback" in outcome.err
        assert outcome.err.endswith("RuntimeError: first line\n")

    def test_traceback_only_with_debug(self, ptychopinn):
        assert "Traceback" not in ptychopinn("info", "nowhere.npz").err
        assert "Traceback" in ptychopinn("info", "nowhere.npz", "--debug").err

    def test_logging_is_restored_after_the_command(self, scan_file, ptychopinn):
        root, own = logging.getLogger(), logging.getLogger("ptycho_backend")
        before = (list(root.handlers), root.level, own.level, warnings.showwarning)
        assert ptychopinn("info", scan_file, "--debug").status == 0
        assert (list(root.handlers), root.level, own.level, warnings.showwarning) == before

    def test_log_records_on_standard_error(self, capsys, tmp_path, scan):
        file = write_npz(scan, tmp_path / "scan.npz")
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key != "measurement"}
        np.savez(file, **arrays)
        assert main(["info", str(file)]) == 0
        captured = capsys.readouterr()
        assert "declares no measurement domain" in captured.err
        assert "declares no measurement domain" not in captured.out
        assert main(["info", str(file), "--quiet"]) == 0
        assert capsys.readouterr() == ("", "")


def test_backends(ptychopinn, needs_pytorch):
    import torch

    outcome = ptychopinn("backends")
    assert outcome.status == 0
    (line,) = (line for line in outcome.out.splitlines() if line.startswith("pytorch"))
    assert "yes" in line
    assert torch.__version__ in line
    assert "cpu" in line


def test_backends_lists_numpy(ptychopinn):
    (line,) = (line for line in ptychopinn("backends").out.splitlines() if line.startswith("numpy"))
    assert np.__version__ in line
    assert "cpu" in line


def test_relative_output_path(scan_file, ptychopinn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ptychopinn("simulate", "-o", "scan.npz", "--N", 32, "--n_positions", 4).status == 0
    assert Path("scan.npz").is_file()
