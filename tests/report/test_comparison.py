"""Pages of several runs: titles, table, agreement with the first run, and reasons for a missing one."""

import dataclasses
import json

import numpy as np
import pytest

from ptycho_backend.errors import DataError
from ptycho_backend.report.comparison import (
    HEADINGS,
    agreements_of,
    comparison_page,
    comparison_table,
    contents_of,
)
from ptycho_backend.report.content import content_of_run
from ptycho_backend.report.page import page_html


@pytest.fixture
def run_folder(make_image, make_assessment, tmp_path):
    """Return a function that writes the folder of a run."""

    def write(name, image=None):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (image or make_image()).save(folder / "reconstruction.h5")
        (folder / "assessment.json").write_text(json.dumps({**make_assessment(), "warnings": ["Too few."]}))
        return folder

    return write


def test_content_of_a_run_folder(run_folder):
    folder = run_folder("first")
    content = content_of_run(folder)
    assert content.title == "first"
    assert content.warnings == ("Too few.",)
    assert content.files == ("assessment.json", "reconstruction.h5")
    assert dict(content.measured)["patterns"] == "64 of 32 × 32 px"
    assert dict(content.found)["residual"] == "0.2 half-deviance per pixel, 2 × shot noise"
    assert "iterations: 3" in content.settings
    assert content_of_run(folder / "reconstruction.h5").assessment == content.assessment


def test_a_copied_image_takes_no_figures_of_its_neighbours(run_folder):
    folder = run_folder("first")
    copy = (folder / "reconstruction.h5").rename(folder / "other.h5")
    assert content_of_run(copy).assessment == {}
    assert content_of_run(copy).files == ("other.h5",)


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 100_000])
def test_damaged_figures_are_an_error(run_folder, text):
    folder = run_folder("first")
    (folder / "assessment.json").write_text(text)
    with pytest.raises(DataError, match=r"assessment\.json"):
        content_of_run(folder)


def test_titles_differ(run_folder, tmp_path):
    paths = [run_folder("a/run"), run_folder("b/run"), run_folder("c/third")]
    assert [content.title for content in contents_of(paths)] == [str(paths[0]), str(paths[1]), "third"]
    with pytest.raises(DataError, match="each run once"):
        contents_of([paths[0], paths[0]])
    with pytest.raises(DataError, match="does not exist"):
        contents_of([paths[0], tmp_path / "none"])


def test_agreement_of_equal_and_different_images(make_content, make_image):
    rng = np.random.default_rng(0)
    image = make_image()
    noise = rng.normal(0, 0.3, image.shape) + 1j * rng.normal(0, 0.3, image.shape)
    noisy = dataclasses.replace(image, obj=(image.obj + noise).astype(np.complex64))
    contents = [make_content("one", image), make_content("same", image), make_content("noisy", noisy)]
    first, same, other = agreements_of(contents)
    assert first.comparison is None
    assert same.comparison.frc_half == 1.0
    assert other.comparison.frc_half < 0.9
    assert other.comparison.phase_psnr_db < same.comparison.phase_psnr_db
    table = comparison_table(contents, (first, same, other))
    assert [len(line) for line in table] == [len(HEADINGS)] * 3
    assert "never below 0.5" in table[1][-1]
    assert table[0][4:6] == ("2", "0.50 of Nyquist (period 80 nm)")


def test_images_that_cannot_be_compared_have_a_reason(make_content, make_image):
    image = make_image()
    coarse = dataclasses.replace(image, pixel_size_m=(4e-8, 4e-8))
    far = dataclasses.replace(image, origin_px=(5000.0, 0.0))
    contents = [make_content("one", image), make_content("coarse", coarse), make_content("far", far)]
    agreements = agreements_of(contents)
    assert agreements[1].reason == "the object pixels differ: 40 nm and 20 nm"
    assert agreements[2].reason
    html = page_html(comparison_page(contents, agreements))
    assert "coarse: not compared with one: the object pixels differ" in html
    assert html.index("Figures") < html.index("Amplitude: one") < html.index("Found: one")
    assert "Phase: far" in html


def test_many_runs_stay_small(make_content, make_image):
    contents = [make_content(f"run {n}", make_image(500, smooth=False, seed=n)) for n in range(5)]
    page = comparison_page(contents, [agreement._replace(reason="") for agreement in agreements_of(contents[:1])] * 5)
    assert len(page_html(page).encode()) < 3_000_000
