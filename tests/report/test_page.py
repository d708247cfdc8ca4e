"""Pages as HTML: content, size, escaping, and nothing that a browser would load."""

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from ptycho_backend.errors import OutputError
from ptycho_backend.report.content import Content
from ptycho_backend.report.page import page_html, page_of, write_report

MAX_BYTES = 3_000_000
HOSTILE = "<script>alert(1)</script>&\"'\x1b[31m\u202e$$x$$"
EMPTY = {"meta", "link", "br", "img", "hr", "input"}


class Structure(HTMLParser):
    """Texts by element, attributes, and elements without an end."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.attributes, self.faults = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if not set(self.open) & {"script", "style"}:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def html(make_content):
    """Return the page of a run."""
    return page_html(page_of(make_content()))


@pytest.fixture(scope="module")
def structure(html):
    """Return the parsed page."""
    return Structure(html)


def test_elements_are_balanced(structure):
    assert structure.faults == []
    assert structure.open == []


@pytest.mark.parametrize(
    "text",
    [
        *("Warning: Patterns fit badly.", "doubtful: overlap.", "measure closer", "1 checks of the scan are good"),
        *("dose 1.0·10⁵ photons per pattern", "object pixel 20 nm", "moved by 0.14 px", "1 contradict all others"),
        *("2: 80.0%, 20.0% of the photons", "0.8 photons per pixel", "0.81 to 1.21 of the mean", "2 × shot noise"),
        *("agree up to 0.50 of Nyquist (period 80 nm)", "ptychopinn 0.1.0", "iterations: 3", "reconstruction.h5"),
        *("How to cite", "Scientific Reports", "Probe mode 2: 20.0% of the photons", "Loss over the epochs"),
    ],
)
def test_content(structure, text):
    assert text in structure.text


def test_warnings_come_first(structure):
    headings = ["Warnings", "Object and residuals", "Probe", "Resolution and history", "Measured", "Settings to copy"]
    places = [structure.texts.index(heading) for heading in headings]
    assert places == sorted(places)


def test_every_picture_has_a_description(structure):
    pictures = [value for tag, name, value in structure.attributes if (tag, name) == ("div", "role")]
    texts = [value for tag, name, value in structure.attributes if (tag, name) == ("div", "aria-label")]
    assert pictures == ["img"] * 8
    assert len(texts) == 8
    assert all(len(text) > 20 for text in texts)


def test_a_browser_loads_nothing(html, structure):
    """The policy forbids it, and no element has an address."""
    assert "default-src 'none'" in html
    addresses = [value for _, name, value in structure.attributes if name in ("src", "href", "action", "srcset")]
    assert addresses == ["data:,"]
    assert not re.search(r"@import|url\(\s*['\"]?http", html)


def test_the_size_is_limited_for_large_runs(make_image, make_content):
    """Noise is the worst case for PNG; the factor is said."""
    html = page_html(page_of(make_content(image=make_image(1400, 60_000, 8, smooth=False))))
    assert len(html.encode()) < MAX_BYTES
    text = Structure(html).text
    assert re.search(r"drawn as means of [2-9] × [2-9] px", text)
    assert re.search(r"Residuals of 60000 patterns at their positions; \d{4,5} are drawn", text)


def test_names_are_escaped(make_content):
    image = dataclasses.replace(make_content().image, name=HOSTILE, provenance={"source": HOSTILE})
    rows = ((HOSTILE, HOSTILE),)
    fields = dict.fromkeys(("warnings", "files"), (HOSTILE,)) | dict.fromkeys(("measured", "found", "versions"), rows)
    content = make_content(HOSTILE, image, settings=HOSTILE, **fields)
    evaluation = {"truth": HOSTILE, HOSTILE: content.evaluation["no_network"]}
    html = page_html(page_of(dataclasses.replace(content, evaluation=evaluation)))
    structure = Structure(html)
    assert "alert(1)</script>" not in html
    assert structure.faults == structure.open == []
    assert "<script>alert(1)</script>" in structure.text  # as text
    assert "\x1b" not in html.partition("</style>")[2].partition("<script")[0]
    assert r"\x1b[31m\u202e" in structure.text


def test_a_page_without_an_image(make_content):
    html = page_html(page_of(Content("run", losses=({"epoch": 1.0, "train_loss": 0.5},))))
    assert "Training without a reconstruction" in html
    assert "Loss over the epochs" in html
    assert "<script" not in page_html(page_of(Content("run")))


def test_an_unknown_pixel_and_missing_figures(make_image, make_content):
    image = make_image(pixel_m=None)
    text = Structure(page_html(page_of(make_content(image=image, assessment={}, evaluation={})))).text
    assert "object pixel unknown" in text
    assert "Residual of each pattern" not in text
    assert "Fourier ring correlation" not in text
    bare = dataclasses.replace(image, experiment=None, errors=())
    assert "Probe mode" not in Structure(page_html(page_of(Content("bare", bare)))).text


@pytest.mark.parametrize("obj", [np.zeros((20, 20)), np.full((20, 20), np.nan), np.ones((1, 1))], ids=["0", "nan", "1"])
def test_degenerate_objects(make_image, obj):
    image = dataclasses.replace(make_image(), obj=obj.astype(np.complex64), coverage=np.ones(obj.shape, np.float32))
    assert "Amplitude of the object" in page_html(page_of(Content("run", image)))


def test_null_and_short_lists_in_an_assessment(make_content, make_assessment):
    figures = make_assessment()
    figures["residual_per_pattern"] = figures["residual_per_pattern"][:-1]
    figures["halves"]["correlation"][3] = None
    text = Structure(page_html(page_of(make_content(assessment=figures)))).text
    assert "Residual of each pattern" not in text
    assert "Fourier ring correlation" in text


def test_write_report(make_content, tmp_path):
    path = write_report(tmp_path / "report.html", make_content("gr\udce9\U0001f600"))
    text = path.read_text(encoding="utf-8")
    assert r"gr\xe9" in text
    with pytest.raises(OutputError):
        write_report(tmp_path / "none" / "report.html", make_content())
