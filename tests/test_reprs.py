"""Short texts and HTML summaries of the public results, with a small picture."""

import base64
import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.data.image import Experiment, Image
from ptycho_backend.engines.model import Model
from ptycho_backend.model_file.run import Run
from ptycho_backend.plots.notebook import MAX_BYTES, html_summary, object_png

NAME = "<img src=x>&.npz"


@pytest.fixture(scope="module")
def scan():
    made = pb.simulate_scan(N=32, n_positions=49, seed=2)
    return made.changed(source=NAME)


@pytest.fixture(scope="module")
def image(scan):
    return pb.reconstruct(scan, device="cpu", iterations=2, probe_iterations=0)


@pytest.fixture(scope="module")
def assessment(scan, image):
    return pb.assess(scan, image, inference=pb.InferenceConfig(half_datasets=False, probe_iterations=0))


@pytest.fixture(scope="module")
def run():
    model = type("Untrained", (Model,), dict.fromkeys(Model.__abstractmethods__))()
    model.training = pb.TrainingConfig(model=pb.ModelConfig(N=32))
    model.config, model.backend = model.training.model, "none"
    history = [{"epoch": n, "lr": 1e-3, model.train_loss_name: 1 / n} for n in (1, 2, 3)]
    return Run(model, model.training, pb.ExecutionConfig(), history, "", {"training_seconds": 12.0})


@pytest.fixture(params=["scan", "image", "assessment", "run"])
def result(request):
    return request.getfixturevalue(request.param)


def test_texts_are_short(result):
    assert len(repr(result).splitlines()) <= 2
    assert len(repr(result).splitlines()[0]) < 250
    assert repr(result).startswith(f"<{type(result).__name__}")


def test_texts_name_size_pixel_and_dose(scan, image, run, assessment):
    assert repr(scan) == (
        f"<Scan '{NAME}': 49 patterns of 32 × 32 px (uint32 counts), pixel 10 nm, "
        "about 9.9·10⁵ photons per pattern, 1 probe mode, known object>"
    )
    assert repr(image).startswith(f"<Image '{NAME}': {image.shape[0]} × {image.shape[1]} px of 10 nm, 1.0·10⁶ photons")
    assert f"error {image.errors[-1]:.3g} after 2 iterations" in repr(image)
    assert repr(run) == (
        "<Run: unet, N=32, gridsize=1, loss poisson, engine none, 3 epochs, poisson_train_loss 0.3333, 12 s>"
    )
    assert repr(run.model) == "<Model: unet, N=32, gridsize=1, loss poisson, engine none>"
    assert "× shot noise" in repr(assessment)
    warned = assessment.warnings
    assert ("no warnings" in repr(assessment)) == (not warned)


def test_experiment_names_what_was_found():
    probe, positions = np.ones((2, 4, 4), np.complex64), np.zeros((3, 2))
    plain = Experiment(probe, positions, positions, np.ones(3))
    assert repr(plain) == "<Experiment: 2 probe modes, 3 positions>"
    found = Experiment(probe, positions, positions, np.array([0.5, 1, 1]), 0.25, ("positions",), (1,), "-y+x")
    assert repr(found) == (
        "<Experiment: 2 probe modes, 3 positions, orientation -y+x, relative flux 0.25 to 1.00, background 0.25, "
        "1 left out, needed and not fitted: positions>"
    )


def test_a_description_reads_few_patterns():
    class Counted(np.ndarray):
        rows = 0

        def __getitem__(self, key):
            part = super().__getitem__(key)
            Counted.rows += len(part) if isinstance(part, np.ndarray) and part.ndim == 3 else 0
            return part

    scan = pb.simulate_scan(N=16, n_positions=100, seed=1)
    scan = scan.changed(patterns=scan.patterns.view(Counted))
    repr(scan)
    assert 0 < Counted.rows <= 16


def test_html_is_escaped_and_holds_one_small_picture(result):
    page = result._repr_html_()
    content = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', page)[1])
    assert len(content) <= MAX_BYTES
    assert np.ptp(matplotlib.image.imread(io.BytesIO(content))[..., :3]) > 0.3  # something is drawn
    assert "<img src=x>" not in page
    assert len(re.findall("<img", page)) == 1
    root = ElementTree.fromstring(page.replace('">\n<table', '"/>\n<table'))
    assert len(root.findall("table/tr")) >= 3


def test_a_picture_of_noise_is_small_too():
    rng = np.random.default_rng(0)
    noise = np.exp(1j * rng.normal(size=(700, 900))).astype(np.complex64)
    assert 10_000 < len(object_png(noise)) <= MAX_BYTES


def test_a_picture_that_fails_leaves_the_table():
    def fail():
        raise MemoryError("<b>no memory</b>")

    page = html_summary("<title>", {"size": "1 < 2"}, fail, ["a & b"])
    assert "no picture: MemoryError" in page
    assert "1 &lt; 2" in page
    assert "&lt;title&gt;" in page
    assert "a &amp; b" in page


@pytest.mark.parametrize("value", [0, np.nan])
def test_an_image_without_content_has_a_summary(value):
    image = Image(np.full((6, 7), value, np.complex64), np.zeros((6, 7), np.float32), (0.0, 0.0))
    assert repr(image) == "<Image: 6 × 7 px>"
    assert "base64" in image._repr_html_()


def test_warnings_stand_before_the_table(assessment):
    warned = dataclasses.replace(assessment, warnings=("Check the <probe>.", "Second."))
    assert repr(warned).splitlines()[1] == "Check the <probe>."
    assert "2 warnings" in repr(warned)
    page = warned._repr_html_()
    assert page.index("Check the &lt;probe&gt;.") < page.index("<table")
