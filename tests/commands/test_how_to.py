"""The how-to pages: commands, files and options exist, and the examples on scans run on files of each layout."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import h5py
import matplotlib.image
import numpy as np
import pytest
import tifffile

import ptycho_backend as pb
from ptycho_backend import plots
from ptycho_backend.commands import COMMANDS, MODULES
from ptycho_backend.commands.files import IMAGE_FILES
from ptycho_backend.data.orientation import AS_GIVEN, ORIENTATIONS, oriented
from ptycho_backend.importing import presets as presets_module
from ptycho_backend.importing.presets import PRESETS

from ..importing import layouts

FOLDER = Path(__file__).parents[2] / "docs/how-to"
TEXT = (FOLDER / "command-line.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
EXAMPLES = [line for block in BLOCKS for line in block.splitlines() if not line.startswith("source ")]
MINE = "The layout of your beamline"
RASTER = (5, 6)


def command_line_of(command):
    return import_module(f"ptycho_backend.commands.{MODULES.get(command, command)}").command_line()


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_parse(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run.yaml", "runs/first/config.yaml"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("training: {nepochs: 3}", encoding="utf-8")
    program, command, *rest = shlex.split(example)
    assert program == "ptychopinn"
    command_line_of(command).parse(rest)


def test_commands_and_files_are_listed():
    assert all(f"| `{command}` |" in TEXT for command in COMMANDS)
    assert all(f"`{name}`" in TEXT for name in (*IMAGE_FILES, "wts.h5.zip", "losses.png"))
    assert len(EXAMPLES) >= 8


def test_named_options_exist():
    named = set(re.findall(r"`(--[\w-]+)(?![\w.-])", TEXT))  # fields of a section, as --training.nepochs, are elsewhere
    known = {option for command in COMMANDS for option in command_line_of(command).options}
    assert named - known == set()


# --- pages whose examples run --------------------------------------------------------------------------------------


def sections(page: str) -> dict[str, list[tuple[str, str]]]:
    """Return the code blocks, (language, code), of each section of a page, by its title without a number."""
    found = {}
    for part in re.split(r"^## ", (FOLDER / page).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title = part.partition("\n")[0].lstrip("0123456789. ")
        found[title] = re.findall(r"^```(\w+)\n(.*?)^```", part, flags=re.DOTALL | re.MULTILINE)
    return found


def command_lines(code: str) -> Iterator[tuple[list[str], str]]:
    """Yield the words of each command, and the file that takes its output."""
    for line in code.replace("\\\n", " ").splitlines():
        line, _, file = line.partition(" > ")
        program, *words = shlex.split(line)
        assert program == "ptychopinn"
        yield words, file.strip()


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def run_section(ptychopinn, quick, monkeypatch):
    """Return a function that runs the blocks of a section, with a short training, and returns their output."""
    train = pb.train

    def short(scan, config):
        config.nepochs, config.probe_iterations, config.model.n_filters_scale = 1, 0, 1
        config.backend = "pytorch"
        return train(scan, config, pb.ExecutionConfig(precision="32-true"))

    def run(page, title):
        shown = ""
        for language, code in sections(page)[title]:
            if language == "sh":
                for words, file in command_lines(code):
                    outcome = ptychopinn(*words, *(quick if words[0] == "train" else ()))
                    assert outcome.status == 0, outcome.err
                    shown += outcome.out + outcome.err
                    if file:
                        Path(file).write_text(outcome.out, encoding="utf-8")
            elif language == "python":
                monkeypatch.setattr(pb, "train", short)
                with contextlib.redirect_stdout(io.StringIO()) as stream:
                    exec(compile(code, f"{page}, {title}", "exec"), {})
                shown += stream.getvalue()
        return plain(shown)

    return run


def expected_lines(page: str, title: str) -> list[str]:
    return [plain(line) for kind, code in sections(page)[title] if kind == "text" for line in code.splitlines()]


@pytest.fixture(scope="module")
def true():
    return layouts.truth()


def write_motors(folder: Path, true: layouts.Truth) -> None:
    rows = [f"{i},{y:.9f},{x:.9f}" for i, (y, x) in enumerate(true.positions_m * 1e6)]
    (folder / "motors.csv").write_text("\n".join(["time,sy,sx", *rows]), encoding="utf-8")


def assert_imported(true: layouts.Truth, file: str = "imported.h5") -> None:
    """Compare patterns on good pixels, and positions up to their origin, with the scan behind the files."""
    scan = pb.load_scan(file)
    np.testing.assert_array_equal(np.where(scan.mask, scan.patterns, 0), np.where(scan.mask, true.patterns, 0))
    found, known = (each - each.mean(axis=0) for each in (scan.positions_px, true.scan.positions_px))
    np.testing.assert_allclose(found, known, atol=1e-3)


# --- your-own-scan.md ----------------------------------------------------------------------------------------------

OWN = "your-own-scan.md"


@pytest.fixture
def own_files(tmp_path, monkeypatch, true):
    """Return the folder of the page: patterns with the zero frequency in the corner, and motors in micrometres."""
    monkeypatch.chdir(tmp_path)
    layouts.cxi(tmp_path, true)
    write_motors(tmp_path, true)
    with h5py.File("run7.h5", "w") as file:
        file["entry/frames"] = np.fft.ifftshift(true.patterns, axes=(1, 2))
        file["entry/preview"] = true.patterns[:2]
    np.save("frames.npy", true.patterns)
    true.patterns.astype("<u2").tofile("frames.raw")
    for i, pattern in enumerate(true.patterns):
        tifffile.imwrite(f"frames_{i:03d}.tif", pattern)
    return tmp_path


def test_own_files_are_imported_described_and_checked(own_files, run_section, ptychopinn, true):
    shown = run_section(OWN, "Import the files")
    assert [line for line in expected_lines(OWN, "Import the files") if line not in shown] == []
    run_section(OWN, "Keep the description")
    assert "energy_kev: 8.0" in Path("layout.yaml").read_text(encoding="utf-8")
    assert_imported(true, "scan.h5")
    assert pb.load_scan("pinhole.h5").attributes.get("probe_guess") is None
    assert "Checks: all good" in run_section(OWN, "Check the scan")
    pb.write_npz(true.scan.changed(patterns=np.fft.ifftshift(true.patterns, axes=(1, 2))), "corner.npz")
    shown = plain(ptychopinn("info", "corner.npz").out)
    assert [line for line in expected_lines(OWN, "Check the scan") if line not in shown] == []


@pytest.mark.slow
def test_an_imported_scan_is_reconstructed_and_trained(own_files, run_section, needs_pytorch):
    titles = list(sections(OWN))
    for title in (titles[0], titles[1], *titles[3:]):
        run_section(OWN, title)
    for folder in ("images/scan", "images/first", "runs/first"):
        assert (Path(folder) / "object.png").is_file()
    for folder in ("runs/first", "runs/second"):
        assert (Path(folder) / "wts.h5.zip").is_file()


# --- import-layouts.md ---------------------------------------------------------------------------------------------

LAYOUTS = "import-layouts.md"
CUBES = {"py4dstem": (layouts.py4dstem, 4.1), "ptyrad": (layouts.ptyrad, 0.4)}  # with the step in Å


def product_with_object(folder: Path, true: layouts.Truth) -> None:
    """Write a product and its patterns, with the start of the object that every product has."""
    product, _ = layouts.ptychodus_product(folder, true)
    pixel = {"pixel_height_m": layouts.OBJECT_PIXEL_M, "pixel_width_m": layouts.OBJECT_PIXEL_M}
    with h5py.File(product, "r+") as file:
        file["object"] = np.ones((1, 64, 64), dtype=np.complex64)
        file["object"].attrs.update({**pixel, "center_y_m": 0.0, "center_x_m": 0.0})


def test_every_layout_has_an_example():
    assert set(sections(LAYOUTS)) == {*PRESETS, MINE}


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in CUBES])
def test_the_example_of_a_layout_gives_the_scan(tmp_path, monkeypatch, true, run_section, name):
    monkeypatch.chdir(tmp_path)
    build = product_with_object if name == "ptychodus" else layouts.LAYOUTS[name]
    build(tmp_path, true)
    write_motors(tmp_path, true)
    assert name in run_section(LAYOUTS, name)
    assert_imported(true)


@pytest.mark.parametrize("name", CUBES)
def test_the_example_of_a_cube_gives_its_raster(tmp_path, monkeypatch, true, run_section, name):
    monkeypatch.chdir(tmp_path)
    build, step_angstrom = CUBES[name]
    build(tmp_path, layouts.raster_cube(true, RASTER))
    assert name in run_section(LAYOUTS, name)
    scan = pb.load_scan("imported.h5")
    np.testing.assert_array_equal(scan.patterns, true.patterns)
    step_px = step_angstrom * layouts.N * 0.02
    rows, columns = np.divmod(np.arange(RASTER[0] * RASTER[1]), RASTER[1])
    expected = step_px * np.stack([rows, columns], axis=1)
    np.testing.assert_allclose(scan.positions_px - scan.positions_px[0], expected, atol=1e-4)


def test_a_beamline_adds_the_layout_of_the_page(tmp_path, monkeypatch, true, run_section):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    code = dict(sections(LAYOUTS)[MINE])
    (tmp_path / "my_beamline.py").write_text(code["python"], encoding="utf-8")
    group, name, value = re.match(r'\[project\.entry-points\."(.*)"\]\n(\w+) = "(.*)"', code["toml"]).groups()
    entries = {group: [EntryPoint(name, value, group)]}
    monkeypatch.setattr(presets_module, "entry_points", lambda group: entries.get(group, []))
    with h5py.File("bl7_run12.h5", "w") as file:
        file["exchange/data"] = true.patterns
        file["motors/sy"], file["motors/sx"] = (true.positions_m * (-1e6, 1e6)).T
    assert "bl7" in run_section(LAYOUTS, MINE)
    assert_imported(true)


# --- plots.md ------------------------------------------------------------------------------------------------------

PLOTS = "plots.md"


def test_the_figure_of_the_page_is_drawn(tmp_path, monkeypatch, run_section):
    monkeypatch.chdir(tmp_path)
    run_section(PLOTS, "One figure of a result")
    assert matplotlib.image.imread("lines.png").shape[:2] == (1200, 1800)


def test_functions_of_the_page_exist():
    named = re.findall(r"plots\.(\w+)\(", (FOLDER / PLOTS).read_text(encoding="utf-8"))
    assert len(named) >= 7
    assert set(named) <= set(plots.__all__)


# --- axes-and-orientation.md ---------------------------------------------------------------------------------------

AXES = "axes-and-orientation.md"
TABLE = re.findall(r"^\| `([+-][xy][+-][xy])` \| `(.*)` \|$", (FOLDER / AXES).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_orientation_is_in_the_table():
    assert {name for name, _ in TABLE} == set(ORIENTATIONS) - {AS_GIVEN}


@pytest.mark.parametrize(("name", "options"), TABLE)
def test_options_of_an_import_turn_as_the_orientation(tmp_path, monkeypatch, true, ptychopinn, name, options):
    monkeypatch.chdir(tmp_path)
    np.save("frames.npy", true.patterns)
    np.savetxt("positions.txt", true.scan.positions_px)
    places = ("--positions.text", "positions.txt", "--positions.columns", "0,1", "--positions.unit", "px")
    outcome = ptychopinn("import", "frames.npy", "--output", "scan.npz", *places, *shlex.split(options))
    assert outcome.status == 0, outcome.err
    found, known = (
        each - each.mean(axis=0)
        for each in (pb.load_scan("scan.npz").positions_px, oriented(true.scan, name).positions_px)
    )
    np.testing.assert_allclose(found, known, atol=1e-4)


def test_the_orientation_is_found(tmp_path, monkeypatch, run_section):
    monkeypatch.chdir(tmp_path)
    scan = layouts.truth(64).scan.changed(obj=None)
    pb.write_hdf5(oriented(scan, "-y+x"), "scan.h5")
    shown = run_section(AXES, "Find the orientation")
    assert [line for line in expected_lines(AXES, "Find the orientation") if line not in shown] == []
    assert shown.endswith("-y+x")


def test_pictures_are_small():
    pictures = re.findall(r"\]\(\.\./images/(.*?)\)", (FOLDER / AXES).read_text(encoding="utf-8"))
    assert len(pictures) == 3
    assert all((FOLDER.parent / "images" / name).stat().st_size < 60_000 for name in pictures)


# --- watch-a-training.md -------------------------------------------------------------------------------------------

WATCH = "watch-a-training.md"


def test_progress_and_events_of_the_page(tmp_path, monkeypatch, scan_file, run_section):
    monkeypatch.chdir(tmp_path)
    shutil.copy(scan_file, "scan.npz")
    shown = run_section(WATCH, "In Python and in a notebook")
    assert re.fullmatch(r"\d+ iterations, error 0\.\d+", shown)
    assert matplotlib.image.imread("growing.png").size > 0


def test_events_of_the_page_have_their_fields():
    rows = re.findall(
        r"^\| `pb\.(\w+Event)` \|.*\| (.*) \|$", (FOLDER / WATCH).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name: re.findall(r"`(\w+)`", fields) for name, fields in rows} == {
        event.__name__: [field.name for field in dataclasses.fields(event)]
        for event in (pb.StageEvent, pb.BatchEvent, pb.EpochEvent)
    }
