"""Import with contradictory, malformed and absurd options (spec: data 12): errors of four lines with the option."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.cli import main
from ptycho_backend.config import from_dict, load_yaml, to_dict
from ptycho_backend.errors import ConfigError
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.limits import LIMITS, require_plausible

from .test_hostile_files import N_PATTERNS, N, stack

GEOMETRY = ("--geometry.energy_kev", "8", "--geometry.distance_m", "2", "--geometry.detector_pixel_m", "75e-6")
PINHOLE = ("--probe.optics", "pinhole", "--probe.diameter_m", "3e-7")
RASTER = ("--positions.unit", "px", "--positions.step_y", "2", "--positions.raster_shape")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", stack())
    np.save(tmp_path / "positions.npy", np.random.default_rng(1).uniform(0, 20, (N_PATTERNS, 2)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str, places=("--positions.y", "positions.npy", "--positions.columns", "0,1")) -> int:
    unit = () if "--positions.unit" in options else ("--positions.unit", "px")
    return main(["import", "a.npy", *places, *unit, "--output", "out.h5", "--no-progress", *options])


def assert_refused(folder, capsys, option: str, *options: str, places=None) -> None:
    arguments = {} if places is None else {"places": places}
    assert run(*options, **arguments) in (1, 2)
    text = capsys.readouterr().err
    assert all(f"  {word}:" in text for word in ("Expected", "Received", "Fix")), text
    assert option in text.replace("\n", " "), text
    assert "--debug" not in text  # the end of a message of an unexpected exception
    assert not list(folder.glob("*out.h5*"))


def test_the_options_of_these_tests_give_a_scan(folder):
    assert run() == 0


def test_numbers_beyond_their_limits_name_the_option(folder, capsys):
    for section, limits in LIMITS.items():
        for name, (least, largest) in limits.items():
            for value in (least / 10, largest * 10):
                values = to_dict(ImportConfig()) | {section: {name: value}}
                with pytest.raises(ConfigError, match=f"--{section}.{name} from"):
                    require_plausible(from_dict(ImportConfig, values))
            require_plausible(from_dict(ImportConfig, {section: {name: largest}}))
    for value in ("5e-324", "1e308"):
        assert_refused(
            folder, capsys, "--geometry.distance_m", *GEOMETRY[:2], *GEOMETRY[4:], f"--geometry.distance_m={value}"
        )
    assert_refused(folder, capsys, "--probe.diameter_m", *GEOMETRY, *PINHOLE[:2], "--probe.diameter_m", "1e308")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1", "1e400", "abc", ""])
def test_numbers_that_are_none_are_refused(folder, capsys, value):
    for option in ("--detector.gain", "--geometry.energy_kev", "--positions.step_y", "--detector.size_px"):
        assert_refused(folder, capsys, option.removeprefix("--"), f"{option}={value}")


@pytest.mark.parametrize("option", ["--positions.y_sign", "--positions.x_sign"])
@pytest.mark.parametrize("value", ["0", "2", "+", "1.5"])
def test_a_sign_is_one_of_two_numbers(folder, capsys, option, value):
    assert_refused(folder, capsys, "one of 1, -1", f"{option}={value}")


@pytest.mark.parametrize("value", ["1000000x1000000", "99999999999999x99999999999", "0x12", "-3x4", "3x", "3x5x1"])
def test_a_raster_has_a_place_for_every_pattern(folder, capsys, value):
    assert_refused(folder, capsys, "--positions.raster_shape", *RASTER, value, places=())


@pytest.mark.parametrize("value", ["::0", "5:2", "a", "::-1", "1:2:3:4", "3", "12:", "1.5:"])
def test_frames_are_a_slice_with_patterns(folder, capsys, value):
    assert_refused(folder, capsys, "--patterns.frames", f"--patterns.frames={value}")


@pytest.mark.parametrize("value", ["yy", "NYX", "nyxx", "n", "n y x", "YXyx"])
def test_axes_are_letters_of_the_array(folder, capsys, value):
    assert_refused(folder, capsys, "--patterns.axes", f"--patterns.axes={value}")


@pytest.mark.parametrize("size", ["40", "4096"])
def test_a_window_ends_at_twice_the_detector(folder, capsys, size):
    assert_refused(folder, capsys, "--detector.size_px", f"--detector.size_px={size}")
    assert run(f"--detector.size_px={2 * N}") == 0


def test_a_gain_that_leaves_no_photon_is_refused_before_the_writing(folder, capsys):
    assert_refused(folder, capsys, "--detector.gain", "--detector.gain=1e9")


@pytest.mark.parametrize("output", [".", "/", "x" * 300 + ".h5", "null\0.h5", "folder.h5"])
def test_outputs_that_are_no_file_names_are_refused(folder, capsys, output):
    (folder / "folder.h5").mkdir()
    assert_refused(folder, capsys, "Results need", f"--output={output}", "--overwrite")


def test_a_yaml_of_brackets_without_end_is_no_recursion_error(folder):
    (folder / "deep.yaml").write_text("{" * 2000)
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml(folder / "deep.yaml", ImportConfig)
