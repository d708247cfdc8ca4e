"""Invalid input: four short lines, the exit status, no new file."""

import dataclasses
import zipfile

import h5py
import numpy as np
import pytest

from ptycho_backend.data.npz import write_npz
from ptycho_backend.engines import registry
from ptycho_backend.engines.registry import available_backends

N, POSITIONS = 32, 9


def fields(**changes):
    """Return the arrays of a valid NPZ scan, with some of them changed or, for None, omitted."""
    rng = np.random.default_rng(0)
    y, x = (axis.ravel().astype(float) for axis in np.mgrid[0:3, 0:3] * 3)
    probe = np.zeros((N, N), complex)
    probe[12:20, 12:20] = 1.0
    arrays = {"xcoords": x, "ycoords": y, "diff3d": rng.poisson(9.0, (POSITIONS, N, N)), "probeGuess": probe}
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def with_value(value):
    patterns = np.random.default_rng(0).poisson(9.0, (POSITIONS, N, N)).astype(np.float32)
    patterns[4, 2, 3] = value
    return patterns


BAD_SCANS = {
    "no patterns": ({"diff3d": None}, "diff3d"),
    "no positions": ({"xcoords": None, "ycoords": None}, "xcoords"),
    "a probe under another name": ({"probeGuess": None, "probe": np.ones((N, N))}, "rename 'probe' to 'probeGuess'"),
    "flat patterns": ({"diff3d": np.ones((POSITIONS, N * N))}, "(position, y, x)"),
    "oblong patterns": ({"diff3d": np.ones((POSITIONS, N, 2 * N))}, f"{2 * N}"),
    "negative counts": ({"diff3d": with_value(-1.0)}, "-1.0 at pattern 4, pixel (2, 3)"),
    "text": ({"diff3d": np.full((POSITIONS, N, N), "a")}, "diff3d"),
    "no light": ({"diff3d": np.zeros((POSITIONS, N, N))}, "light through the object"),
    "too few positions": ({"xcoords": np.arange(7.0), "ycoords": np.arange(7.0)}, "position"),
    "y without x": ({"xcoords": np.arange(7.0)}, "7"),
    "NaN in positions": ({"xcoords": np.full(POSITIONS, np.nan)}, "positions_px"),
    "a probe of another size": ({"probeGuess": np.ones((16, 16), complex)}, "(16, 16)"),
    "a dark probe": ({"probeGuess": np.zeros((N, N), complex)}, "probe"),
    "an empty scan": ({"diff3d": np.ones((0, N, N)), "xcoords": np.ones(0), "ycoords": np.ones(0)}, "pattern"),
    "a size without a network": (
        {"diff3d": np.ones((POSITIONS, 40, 40)), "probeGuess": np.ones((40, 40), complex)},
        "--resize 32",
    ),
}


@pytest.mark.parametrize("kind", BAD_SCANS)
@pytest.mark.parametrize("output", ["run", "deep/down/run"])
def test_invalid_scan(kind, output, ptychopinn, fails_with, tmp_path):
    changes, word = BAD_SCANS[kind]
    np.savez(tmp_path / "bad.npz", **fields(**changes))
    outcome = ptychopinn("train", tmp_path / "bad.npz", "--output", tmp_path / output)
    fails_with(outcome, 1, word)
    assert "bad.npz" in outcome.err
    assert [item.name for item in tmp_path.iterdir()] == ["bad.npz"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pixel_without_a_number_is_masked_or_refused(value, ptychopinn, fails_with, tmp_path):
    np.savez(tmp_path / "bad.npz", **fields(diff3d=with_value(value)))
    refused = ptychopinn("train", tmp_path / "bad.npz", "--output", tmp_path / "run", "--bad-pixels", "off")
    fails_with(refused, 1, f"{value} at pattern 4, pixel (2, 3)")
    masked = ptychopinn("info", tmp_path / "bad.npz")
    assert masked.status == 0
    assert "1 bad detector pixel is masked" in masked.err
    assert "(2, 3)" in masked.err


def test_valid_scan(ptychopinn, tmp_path):
    """Control: the unchanged scan passes."""
    np.savez(tmp_path / "good.npz", **fields())
    outcome = ptychopinn("info", tmp_path / "good.npz")
    assert outcome.status == 0
    assert "9 of 32×32 px" in outcome.out


def test_too_few_positions_for_a_group(ptychopinn, fails_with, needs_pytorch, quick, tmp_path):
    np.savez(tmp_path / "few.npz", **fields())
    argv = ("--output", tmp_path / "run", *quick, "--training.model.gridsize=4")
    fails_with(ptychopinn("train", tmp_path / "few.npz", *argv), 1, "16 positions", "9 positions")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--execution.monitor=loss", ("Unknown metric 'loss'", "poisson_val_loss, poisson_train_loss")),
        ("--execution.precision=16-mixed", ("need a GPU", "use precision=")),
    ],
)
@pytest.mark.parametrize("backend", ["pytorch", "tensorflow"])
def test_invalid_execution_options_fail_before_probe_refinement(
    option, words, backend, scan_file, ptychopinn, fails_with, tmp_path, monkeypatch
):
    if backend not in available_backends():
        pytest.skip(f"{backend} is not installed")

    def refine(*_, **__):
        pytest.fail("the probe was refined")

    monkeypatch.setattr("ptycho_backend.api.refined_calibration", refine)
    argv = ("train", scan_file, "--output", tmp_path / "run", "--backend", backend, "--device=cpu", option)
    fails_with(outcome := ptychopinn(*argv), 2 if "monitor" in option else 1, *words)
    assert len(outcome.err.splitlines()) == 4, outcome.err
    assert list(tmp_path.iterdir()) == []


def test_model_size_differs_from_scan(scan_file, ptychopinn, fails_with, tmp_path):
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", "--training.model.N=64")
    fails_with(outcome, 1, "64×64", "32×32", "--training.model.N 0", "--resize 64")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bytes_left", [0, 100, 0.5, 0.99])
def test_truncated_scan(bytes_left, scan_file, ptychopinn, fails_with, tmp_path):
    content = scan_file.read_bytes()
    left = int(bytes_left * len(content)) if bytes_left < 1 else bytes_left
    (tmp_path / "cut.npz").write_bytes(content[:left])
    for argv in (["info", tmp_path / "cut.npz"], ["train", tmp_path / "cut.npz", "--output", tmp_path / "run"]):
        fails_with(ptychopinn(*argv), 1, "cut.npz")
    assert not (tmp_path / "run").exists()


def test_truncated_hdf5_file(ptychopinn, fails_with, tmp_path):
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["patterns"] = np.ones((POSITIONS, N, N))
    (tmp_path / "cut.h5").write_bytes((tmp_path / "whole.h5").read_bytes()[:5000])
    fails_with(ptychopinn("info", tmp_path / "cut.h5"), 1, "cut.h5")
    fails_with(ptychopinn("info", tmp_path / "whole.h5"), 1, "whole.h5", "probe")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_model(share, trained, scan_file, ptychopinn, fails_with, tmp_path):
    content = (trained[0] / "wts.h5.zip").read_bytes()
    (tmp_path / "wts.h5.zip").write_bytes(content[: int(share * len(content))])
    fails_with(ptychopinn("info", tmp_path / "wts.h5.zip"), 1, "wts.h5.zip")
    output = tmp_path / "image"
    fails_with(ptychopinn("reconstruct", scan_file, "--model", tmp_path, "--output", output), 1, "wts.h5.zip")
    assert not output.exists()


def test_model_with_one_changed_byte(trained, ptychopinn, fails_with, tmp_path):
    with zipfile.ZipFile(trained[0] / "wts.h5.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = members["config.json"].replace(b'"seed": 0', b'"seed": 1')
    with zipfile.ZipFile(tmp_path / "wts.h5.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    fails_with(ptychopinn("info", tmp_path), 1, "checksum")


def test_truncated_reconstruction(trained, scan_file, ptychopinn, fails_with, tmp_path):
    content = (trained[0] / "reconstruction.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    fails_with(ptychopinn("evaluate", tmp_path / "cut.h5", scan_file, "--output", tmp_path / "run"), 1, "cut.h5")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("argv", [["info"], ["train", "--output=run"], ["reconstruct", "--model=m", "--output=run"]])
def test_missing_file(argv, ptychopinn, fails_with, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, *rest = argv
    fails_with(ptychopinn(command, "nowhere.npz", *rest), 1, "nowhere.npz")
    assert list(tmp_path.iterdir()) == []


def test_reconstruction_and_scan_exchanged(trained, scan_file, ptychopinn, fails_with, tmp_path):
    image = trained[0] / "reconstruction.h5"
    fails_with(ptychopinn("train", image, "--output", tmp_path / "run"), 1, "patterns")
    fails_with(ptychopinn("evaluate", scan_file, image), 1, "give the reconstruction first")


def test_scan_without_known_object(trained, file_without_object, ptychopinn, fails_with):
    fails_with(ptychopinn("evaluate", trained[0] / "reconstruction.h5", file_without_object), 1, "objectGuess")


class TestOutput:
    def test_output_below_a_file(self, scan_file, ptychopinn, fails_with, tmp_path):
        (tmp_path / "file").write_text("here", encoding="utf-8")
        for argv in (["train", scan_file], ["reconstruct", scan_file, "--model", "m"], ["evaluate", "a.h5", scan_file]):
            fails_with(ptychopinn(*argv, "--output", tmp_path / "file" / "run"), 1, "Not a directory")
        fails_with(ptychopinn("simulate", "--output", tmp_path / "file" / "scan.npz"), 1)
        assert [item.name for item in tmp_path.iterdir()] == ["file"]

    def test_folder_in_use_fails_before_the_scan_is_read(self, ptychopinn, fails_with, tmp_path):
        (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
        for argv in (["train", "nowhere.npz"], ["reconstruct", "nowhere.npz", "--model", "m"]):
            fails_with(ptychopinn(*argv, "--output", tmp_path), 1, "A run needs an empty folder", "--overwrite")
        assert [item.name for item in tmp_path.iterdir()] == ["notes.txt"]

    def test_existing_scan_needs_overwrite(self, scan_file, ptychopinn, fails_with, tmp_path):
        target = tmp_path / "scan.npz"
        target.write_bytes(b"mine")
        small = ("simulate", "--output", target, "--N", 32, "--n_positions", 4)
        fails_with(ptychopinn(*small), 1, "--overwrite")
        assert target.read_bytes() == b"mine"
        assert ptychopinn(*small, "--overwrite").status == 0
        assert zipfile.is_zipfile(target)

    @pytest.mark.parametrize("name", ["scan.h5", "scan"])
    def test_simulated_scan_needs_suffix_npz(self, name, ptychopinn, fails_with, tmp_path):
        fails_with(ptychopinn("simulate", "--output", tmp_path / name), 1, "ends with .npz")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("argv", [["--object_name", "fotographs"], ["--n_positions", "0"], ["--modes=9"]])
    def test_invalid_simulation_settings(self, argv, ptychopinn, fails_with, tmp_path):
        fails_with(ptychopinn("simulate", "--output", tmp_path / "scan.npz", *argv), 2)
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_framework(monkeypatch):
    """Remove all frameworks from the registry."""
    monkeypatch.setattr(registry, "find_spec", lambda package: None)
    registry._backend.cache_clear()
    yield
    registry._backend.cache_clear()


@pytest.mark.usefixtures("no_framework")
class TestWithoutFrameworks:
    @pytest.mark.parametrize(("name", "extra"), [("pytorch", "torch"), ("tensorflow", "tensorflow"), ("auto", "torch")])
    def test_training_error_contains_install_command(self, name, extra, scan_file, ptychopinn, fails_with, tmp_path):
        outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", "--backend", name)
        fails_with(outcome, 1, f"pip install 'ptychopinn[{extra}]'")
        assert not (tmp_path / "run").exists()

    def test_backends_lists_install_commands(self, ptychopinn):
        outcome = ptychopinn("backends")
        assert outcome.status == 0
        assert "To install 'pytorch': pip install 'ptychopinn[torch]'" in outcome.out
        assert "To install 'tensorflow': pip install 'ptychopinn[tensorflow]'" in outcome.out

    def test_simulate_and_info_run(self, ptychopinn, tmp_path):
        target = tmp_path / "scan.npz"
        assert ptychopinn("simulate", "--output", target, "--N", 32, "--n_positions", 4).status == 0
        assert ptychopinn("info", target).status == 0


def test_unknown_engine(scan_file, ptychopinn, fails_with, tmp_path):
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", "--backend", "torch")
    fails_with(outcome, 2, "did you mean 'pytorch'?")
    assert not (tmp_path / "run").exists()


def test_broken_engine_is_listed(ptychopinn, monkeypatch):
    def broken(name):
        raise OSError("libfoo.so: cannot open shared object file")

    monkeypatch.setattr("ptycho_backend.commands.backends.get_backend", broken)
    monkeypatch.setattr("ptycho_backend.commands.backends.missing_packages", lambda name: ())
    outcome = ptychopinn("backends")
    assert outcome.status == 0
    assert "unusable" in outcome.out
    assert "libfoo.so" in "".join(outcome.out.split())


def test_scan_with_one_pattern(scan, ptychopinn, needs_pytorch, quick, tmp_path):
    file = write_npz(scan.subset(slice(0, 1)), tmp_path / "one.npz")
    outcome = ptychopinn("train", file, "--output", tmp_path / "run", *quick)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "run" / "reconstruction.h5").is_file()
    assert "on training patterns" in outcome.out
    assert "not compared with the known object" in outcome.err


def test_amplitude_scan(scan, ptychopinn, tmp_path):
    patterns = np.sqrt(scan.patterns).astype(np.float32)
    file = write_npz(dataclasses.replace(scan, patterns=patterns, measurement="amplitude"), tmp_path / "amplitude.npz")
    outcome = ptychopinn("info", file)
    assert (outcome.status, outcome.err) == (0, "")
    assert "squared units" in outcome.out
