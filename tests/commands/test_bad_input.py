"""Bad input ends with four short lines, the right status, and nothing left behind."""

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
    """Return the arrays of a sound NPZ scan, with some of them changed or (None) left out."""
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
    "no probe": ({"probeGuess": None}, "probeGuess"),
    "flat patterns": ({"diff3d": np.ones((POSITIONS, N * N))}, "(position, y, x)"),
    "oblong patterns": ({"diff3d": np.ones((POSITIONS, N, 2 * N))}, f"{2 * N}"),
    "NaN": ({"diff3d": with_value(np.nan)}, "nan at pattern 4, pixel (2, 3)"),
    "infinity": ({"diff3d": with_value(np.inf)}, "inf at pattern 4, pixel (2, 3)"),
    "negative counts": ({"diff3d": with_value(-1.0)}, "-1.0 at pattern 4, pixel (2, 3)"),
    "text": ({"diff3d": np.full((POSITIONS, N, N), "a")}, "diff3d"),
    "no light": ({"diff3d": np.zeros((POSITIONS, N, N))}, "photon"),
    "too few positions": ({"xcoords": np.arange(7.0), "ycoords": np.arange(7.0)}, "position"),
    "y without x": ({"xcoords": np.arange(7.0)}, "7"),
    "NaN in positions": ({"xcoords": np.full(POSITIONS, np.nan)}, "positions_px"),
    "a probe of another size": ({"probeGuess": np.ones((16, 16), complex)}, "(16, 16)"),
    "a dark probe": ({"probeGuess": np.zeros((N, N), complex)}, "probe"),
    "an empty scan": ({"diff3d": np.ones((0, N, N)), "xcoords": np.ones(0), "ycoords": np.ones(0)}, "pattern"),
    "a size networks do not take": (
        {"diff3d": np.ones((POSITIONS, 40, 40)), "probeGuess": np.ones((40, 40), complex)},
        "--resize 32",
    ),
}


@pytest.mark.parametrize("kind", BAD_SCANS)
@pytest.mark.parametrize("output", ["run", "deep/down/run"])
def test_bad_scans_are_refused_and_leave_nothing(kind, output, ptychopinn, complains, tmp_path):
    changes, word = BAD_SCANS[kind]
    if kind == "no light" and not available_backends():
        pytest.skip("light is measured after an engine has been found")
    np.savez(tmp_path / "bad.npz", **fields(**changes))
    outcome = ptychopinn("train", tmp_path / "bad.npz", "--output", tmp_path / output)
    complains(outcome, 1, word)
    assert "bad.npz" in outcome.err
    assert [item.name for item in tmp_path.iterdir()] == ["bad.npz"]


def test_the_sound_scan_is_sound(ptychopinn, tmp_path):
    """FitOptions: the tests above fail because of what they change."""
    np.savez(tmp_path / "good.npz", **fields())
    outcome = ptychopinn("info", tmp_path / "good.npz")
    assert outcome.status == 0
    assert "9 of 32×32 px" in outcome.out


def test_fewer_positions_than_a_group_needs(ptychopinn, complains, needs_pytorch, quick, tmp_path):
    np.savez(tmp_path / "few.npz", **fields())
    argv = ("--output", tmp_path / "run", *quick, "--training.model.gridsize=4")
    complains(ptychopinn("train", tmp_path / "few.npz", *argv), 1, "16 positions", "9 positions")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--execution.monitor=loss", ("Unknown metric 'loss'", "poisson_val_loss, poisson_train_loss")),
        ("--execution.precision=16-mixed", ("need a GPU", "use precision=")),
    ],
)
@pytest.mark.parametrize("backend", ["pytorch", "tensorflow"])
def test_what_cannot_be_trained_is_refused_before_the_probe_is_refined(
    option, words, backend, scan_file, ptychopinn, complains, tmp_path, monkeypatch
):
    if backend not in available_backends():
        pytest.skip(f"{backend} is not installed")

    def worked(*_, **__):
        pytest.fail("work was done before")

    monkeypatch.setattr("ptycho_backend.api.refined_calibration", worked)
    argv = ("train", scan_file, "--output", tmp_path / "run", "--backend", backend, "--device=cpu", option)
    complains(outcome := ptychopinn(*argv), 2 if "monitor" in option else 1, *words)
    assert len(outcome.err.splitlines()) == 4, outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_size_given_against_the_scan_is_refused(scan_file, ptychopinn, complains, tmp_path):
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", "--training.model.N=64")
    complains(outcome, 1, "64×64", "32×32", "--training.model.N 0", "--resize 64")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bytes_left", [0, 100, 0.5, 0.99])
def test_a_truncated_scan(bytes_left, scan_file, ptychopinn, complains, tmp_path):
    content = scan_file.read_bytes()
    left = int(bytes_left * len(content)) if bytes_left < 1 else bytes_left
    (tmp_path / "cut.npz").write_bytes(content[:left])
    for argv in (["info", tmp_path / "cut.npz"], ["train", tmp_path / "cut.npz", "--output", tmp_path / "run"]):
        complains(ptychopinn(*argv), 1, "cut.npz")
    assert not (tmp_path / "run").exists()


def test_a_truncated_hdf5_file(ptychopinn, complains, tmp_path):
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file["patterns"] = np.ones((POSITIONS, N, N))
    (tmp_path / "cut.h5").write_bytes((tmp_path / "whole.h5").read_bytes()[:5000])
    complains(ptychopinn("info", tmp_path / "cut.h5"), 1, "cut.h5")
    complains(ptychopinn("info", tmp_path / "whole.h5"), 1, "whole.h5", "probe")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_model(share, trained, scan_file, ptychopinn, complains, tmp_path):
    content = (trained[0] / "wts.h5.zip").read_bytes()
    (tmp_path / "wts.h5.zip").write_bytes(content[: int(share * len(content))])
    complains(ptychopinn("info", tmp_path / "wts.h5.zip"), 1, "wts.h5.zip")
    output = tmp_path / "image"
    complains(ptychopinn("reconstruct", scan_file, "--model", tmp_path, "--output", output), 1, "wts.h5.zip")
    assert not output.exists()


def test_a_model_with_one_changed_byte(trained, ptychopinn, complains, tmp_path):
    with zipfile.ZipFile(trained[0] / "wts.h5.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["config.json"] = members["config.json"].replace(b'"seed": 0', b'"seed": 1')
    with zipfile.ZipFile(tmp_path / "wts.h5.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    complains(ptychopinn("info", tmp_path), 1, "checksum")


def test_a_truncated_reconstruction(trained, scan_file, ptychopinn, complains, tmp_path):
    content = (trained[0] / "reconstruction.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    complains(ptychopinn("evaluate", tmp_path / "cut.h5", scan_file, "--output", tmp_path / "run"), 1, "cut.h5")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("argv", [["info"], ["train", "--output=run"], ["reconstruct", "--model=m", "--output=run"]])
def test_a_file_that_is_not_there(argv, ptychopinn, complains, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, *rest = argv
    complains(ptychopinn(command, "nowhere.npz", *rest), 1, "nowhere.npz")
    assert list(tmp_path.iterdir()) == []


def test_an_image_where_a_scan_belongs_and_the_reverse(trained, scan_file, ptychopinn, complains, tmp_path):
    image = trained[0] / "reconstruction.h5"
    complains(ptychopinn("train", image, "--output", tmp_path / "run"), 1, "patterns")
    complains(ptychopinn("evaluate", scan_file, image), 1, "give the reconstruction first")


def test_truth_that_is_not_known(trained, blind_file, ptychopinn, complains):
    complains(ptychopinn("evaluate", trained[0] / "reconstruction.h5", blind_file), 1, "objectGuess")


class TestOutput:
    def test_a_place_below_a_file_cannot_be_written(self, scan_file, ptychopinn, complains, tmp_path):
        (tmp_path / "file").write_text("here", encoding="utf-8")
        for argv in (["train", scan_file], ["reconstruct", scan_file, "--model", "m"], ["evaluate", "a.h5", scan_file]):
            complains(ptychopinn(*argv, "--output", tmp_path / "file" / "run"), 1, "Not a directory")
        complains(ptychopinn("simulate", "--output", tmp_path / "file" / "scan.npz"), 1)
        assert [item.name for item in tmp_path.iterdir()] == ["file"]

    def test_a_folder_in_use_is_refused_before_anything_is_read(self, ptychopinn, complains, tmp_path):
        (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
        for argv in (["train", "nowhere.npz"], ["reconstruct", "nowhere.npz", "--model", "m"]):
            complains(ptychopinn(*argv, "--output", tmp_path), 1, "A run gets a folder of its own", "--overwrite")
        assert [item.name for item in tmp_path.iterdir()] == ["notes.txt"]

    def test_an_existing_scan_is_replaced_on_request_only(self, scan_file, ptychopinn, complains, tmp_path):
        target = tmp_path / "scan.npz"
        target.write_bytes(b"mine")
        small = ("simulate", "--output", target, "--N", 32, "--n_positions", 4)
        complains(ptychopinn(*small), 1, "--overwrite")
        assert target.read_bytes() == b"mine"
        assert ptychopinn(*small, "--overwrite").status == 0
        assert zipfile.is_zipfile(target)

    @pytest.mark.parametrize("name", ["scan.h5", "scan"])
    def test_a_simulated_scan_is_an_npz_file(self, name, ptychopinn, complains, tmp_path):
        complains(ptychopinn("simulate", "--output", tmp_path / name), 1, "ends with .npz")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("argv", [["--object_name", "fotographs"], ["--n_positions", "0"], ["--modes=9"]])
    def test_a_simulation_that_is_not_possible(self, argv, ptychopinn, complains, tmp_path):
        complains(ptychopinn("simulate", "--output", tmp_path / "scan.npz", *argv), 2)
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_framework(monkeypatch):
    """Let no framework be installed."""
    monkeypatch.setattr(registry, "find_spec", lambda package: None)
    registry.get_backend.cache_clear()
    yield
    registry.get_backend.cache_clear()


@pytest.mark.usefixtures("no_framework")
class TestWithoutFrameworks:
    @pytest.mark.parametrize(("name", "extra"), [("pytorch", "torch"), ("tensorflow", "tensorflow"), ("auto", "torch")])
    def test_training_says_what_to_install(self, name, extra, scan_file, ptychopinn, complains, tmp_path):
        outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", "--backend", name)
        complains(outcome, 1, f"pip install 'ptychopinn[{extra}]'")
        assert not (tmp_path / "run").exists()

    def test_the_list_of_engines_says_what_to_install(self, ptychopinn):
        outcome = ptychopinn("backends")
        assert outcome.status == 0
        assert "To install 'pytorch': pip install 'ptychopinn[torch]'" in outcome.out
        assert "To install 'tensorflow': pip install 'ptychopinn[tensorflow]'" in outcome.out

    def test_simulation_and_info_need_none(self, ptychopinn, tmp_path):
        target = tmp_path / "scan.npz"
        assert ptychopinn("simulate", "--output", target, "--N", 32, "--n_positions", 4).status == 0
        assert ptychopinn("info", target).status == 0


def test_an_engine_nobody_knows(scan_file, ptychopinn, complains, tmp_path):
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", "--backend", "torch")
    complains(outcome, 2, "did you mean 'pytorch'?")
    assert not (tmp_path / "run").exists()


def test_an_engine_that_breaks_is_a_line_of_the_list(ptychopinn, monkeypatch):
    def broken(name):
        raise OSError("libfoo.so: cannot open shared object file")

    monkeypatch.setattr("ptycho_backend.commands.backends.get_backend", broken)
    monkeypatch.setattr("ptycho_backend.commands.backends.missing_packages", lambda name: ())
    outcome = ptychopinn("backends")
    assert outcome.status == 0
    assert "unusable" in outcome.out
    assert "libfoo.so" in "".join(outcome.out.split())


def test_one_pattern_is_a_scan(scan, ptychopinn, needs_pytorch, quick, tmp_path):
    file = write_npz(scan.subset(slice(0, 1)), tmp_path / "one.npz")
    outcome = ptychopinn("train", file, "--output", tmp_path / "run", *quick)
    assert outcome.status == 0, outcome.err
    assert (tmp_path / "run" / "reconstruction.h5").is_file()
    assert "on training patterns" in outcome.out
    assert "not compared with the known object" in outcome.err


def test_an_amplitude_scan_is_one_too(scan, ptychopinn, tmp_path):
    patterns = np.sqrt(scan.patterns).astype(np.float32)
    file = write_npz(dataclasses.replace(scan, patterns=patterns, measurement="amplitude"), tmp_path / "amplitude.npz")
    outcome = ptychopinn("info", file)
    assert (outcome.status, outcome.err) == (0, "")
    assert "squared units" in outcome.out
