"""Pictures: complete PNG files, no global state, scales and labels."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from ptycho_backend.data.phase_plane import level
from ptycho_backend.errors import DataError, OutputError
from ptycho_backend.plots import figures as plot_figures
from ptycho_backend.plots import objects as plot_objects
from ptycho_backend.plots import plot_comparison, plot_losses, plot_object, plot_probe
from ptycho_backend.quality.metrics import compare
from ptycho_backend.simulation.objects import make_object
from ptycho_backend.simulation.probes import make_probe

OBJ = make_object("lines", (40, 56), np.random.default_rng(0))
HISTORY = [
    {"epoch": n, "poisson_train_loss": 3.0 / n, "poisson_val_loss": 3.3 / n, "lr": 1e-3 / n} for n in range(1, 6)
]


@pytest.fixture
def drawn(monkeypatch):
    """Collect the written figures."""
    figures: list[Figure] = []
    write = plot_figures.write_figure

    def collect(figure, path):
        figures.append(figure)
        write(figure, path)

    monkeypatch.setattr(plot_figures, "write_figure", collect)
    return figures


def picture(path):
    pixels = matplotlib.image.imread(path)
    assert pixels.ndim == 3
    assert min(pixels.shape[:2]) > 300
    assert pixels[..., :3].std() > 0.05
    return pixels


def shown(figure: Figure, panel: int) -> np.ma.MaskedArray:
    return figure.axes[panel].images[0].get_array()


def test_every_picture_is_a_png(tmp_path):
    plot_object(tmp_path / "object.png", OBJ, (-3.0, 5.0), (1e-8, 1e-8), "Object")
    plot_probe(tmp_path / "probe.png", make_probe("disc", 32, np.random.default_rng(0), modes=5))
    plot_losses(tmp_path / "losses.png", HISTORY, floor=0.2)
    plot_comparison(tmp_path / "comparison.png", compare(OBJ, (0, 0), OBJ, (0, 0)))
    for name in ("object", "probe", "losses", "comparison"):
        picture(tmp_path / f"{name}.png")
    assert len(list(tmp_path.iterdir())) == 4  # no temporary file


class TestObject:
    def test_piston_and_ramp_are_removed_and_printed(self, tmp_path, drawn):
        plot_object(tmp_path / "plain.png", OBJ)
        plot_object(tmp_path / "ramped.png", level(OBJ, -np.array([1.0, 0.2, -0.1])))
        np.testing.assert_allclose(shown(drawn[0], 1), shown(drawn[1], 1), atol=0.01)
        plot_object(tmp_path / "plane.png", level(np.ones((40, 56)), -np.array([1.0, 0.2, -0.1])))
        np.testing.assert_allclose(shown(drawn[2], 1), 0, atol=1e-6)
        assert "y +2.0e-01, x -1.0e-01 rad/px" in drawn[2].axes[1].get_title()

    def test_axes_are_scan_coordinates(self, tmp_path, drawn):
        plot_object(tmp_path / "px.png", OBJ, (10.0, -4.0))
        plot_object(tmp_path / "um.png", OBJ, (10.0, -4.0), (1e-7, 2e-7))
        # left, right, bottom, top; y grows downwards.
        assert drawn[0].axes[0].images[0].get_extent() == [-4.5, 51.5, 49.5, 9.5]
        np.testing.assert_allclose(drawn[1].axes[0].images[0].get_extent(), [-0.9, 10.3, 4.95, 0.95])
        assert drawn[1].axes[0].get_xlabel() == "x, µm"

    def test_uncovered_pixels_are_masked(self, tmp_path, drawn):
        obj = OBJ.copy()
        obj[12:20, 6:30] = 0
        plot_object(tmp_path / "o.png", obj)
        np.testing.assert_array_equal(np.ma.getmaskarray(shown(drawn[0], 0)), obj == 0)
        low, _ = drawn[0].axes[0].images[0].get_clim()
        assert low > 0.5  # zeros do not set the grey scale

    def test_a_few_wild_pixels_do_not_set_the_scale(self, tmp_path, drawn):
        obj = OBJ.copy()
        obj[5, 5] = 1000.0
        plot_object(tmp_path / "o.png", obj)
        assert drawn[0].axes[0].images[0].get_clim()[1] < 2

    def test_wrapping_phases_get_a_cyclic_scale(self, tmp_path, drawn):
        y, x = np.indices((60, 60)) - 30
        plot_object(tmp_path / "wraps.png", np.exp(0.02j * (y**2 + x**2)))
        plot_object(tmp_path / "small.png", OBJ)
        assert drawn[0].axes[1].images[0].get_cmap().name == "twilight"
        assert drawn[1].axes[1].images[0].get_cmap().name == "cividis"

    def test_large_objects_are_subsampled(self, tmp_path, drawn, monkeypatch):
        monkeypatch.setattr(plot_objects, "MAX_DRAWN_PX", 30)
        plot_object(tmp_path / "large.png", level(np.ones((40, 56)), -np.array([1.0, 0.2, -0.1])))
        image = drawn[0].axes[1].images[0]
        assert image.get_array().shape == (20, 28)
        np.testing.assert_allclose(shown(drawn[0], 1), 0, atol=1e-6)
        assert "y +2.0e-01, x -1.0e-01 rad/px" in drawn[0].axes[1].get_title()
        assert image.get_extent() == [-0.5, 55.5, 39.5, -0.5]

    @pytest.mark.parametrize("obj", [np.zeros((20, 30)), np.ones((20, 30))])
    def test_empty_and_flat_objects_can_be_drawn(self, tmp_path, obj):
        plot_object(tmp_path / "o.png", obj)
        assert (tmp_path / "o.png").stat().st_size > 1000


class TestProbe:
    def test_brightness_is_amplitude_and_hue_is_phase(self, tmp_path, drawn):
        probe = np.zeros((2, 8, 8), dtype=complex)
        probe[0, 1, 2], probe[0, 3, 4], probe[1, 5, 6] = 2.0, -1.0, 1.0
        plot_probe(tmp_path / "p.png", probe)
        first = shown(drawn[0], 0)
        np.testing.assert_allclose(first[1, 2], [1, 0, 0], atol=1e-6)  # brightest, phase 0: red
        np.testing.assert_allclose(first[3, 4], [0, 0.5, 0.5], atol=1e-6)  # half as bright, phase π: cyan
        np.testing.assert_allclose(first[0, 0], 0)
        titles = [axes.get_title() for axes in drawn[0].axes[:2]]
        assert "83.3%" in titles[0]
        assert "16.7%" in titles[1]

    def test_mode_axis_is_optional(self, tmp_path, drawn):
        plot_probe(tmp_path / "p.png", np.ones((16, 16)))
        titles = [axes.get_title() for axes in drawn[0].axes if axes.images]
        assert titles == ["Mode 1: 100.0% of the photons", "Far field of mode 1"]


class TestLosses:
    def test_curves_floor_and_rate_are_drawn(self, tmp_path, drawn):
        plot_losses(tmp_path / "l.png", HISTORY, floor=0.25)
        axes, rate = drawn[0].axes
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["poisson_train_loss", "poisson_val_loss", "shot-noise floor (0.25)"]
        assert axes.get_yscale() == "log"
        np.testing.assert_allclose(axes.lines[1].get_ydata(), [3.3 / n for n in range(1, 6)])
        np.testing.assert_allclose(rate.lines[0].get_ydata(), [1e-3 / n for n in range(1, 6)])

    def test_gaps_and_negative_losses_are_drawn_on_a_linear_axis(self, tmp_path, drawn):
        history = [{"train_loss": 1.0}, {"train_loss": -0.5, "val_loss": float("nan")}, {"val_loss": 0.3}]
        plot_losses(tmp_path / "l.png", history)
        assert drawn[0].axes[0].get_yscale() == "linear"
        np.testing.assert_array_equal(drawn[0].axes[0].lines[0].get_xdata(), [1, 2, 3])

    @pytest.mark.parametrize("history", [[], [{"epoch": 1, "lr": 0.1}]])
    def test_a_history_without_losses_is_refused(self, tmp_path, history):
        with pytest.raises(DataError, match="train_loss"):
            plot_losses(tmp_path / "l.png", history)


class TestComparison:
    def test_image_and_truth_share_one_scale(self, tmp_path, drawn):
        plot_comparison(tmp_path / "c.png", compare(OBJ + 0.05j, (0, 0), OBJ, (0, 0)))
        panels = [axes for axes in drawn[0].axes if axes.images]
        for row in (panels[:3], panels[3:6]):
            assert row[0].images[0].get_clim() == row[1].images[0].get_clim()
            low, high = row[2].images[0].get_clim()
            assert low == -high

    def test_warnings_are_printed_on_the_picture(self, tmp_path, drawn):
        plot_comparison(tmp_path / "c.png", compare(np.ones_like(OBJ), (0, 0), OBJ, (0, 0)))
        texts = " ".join(text.get_text() for axes in drawn[0].axes for text in axes.texts)
        assert "Warning: the image's amplitude" in texts.replace("\n", " ")


class TestFiles:
    def test_titles_are_plain_text(self, tmp_path, drawn):
        """A name of a file with dollar signs is no formula."""
        plot_object(tmp_path / "o.png", OBJ, title=r"a$\nothing$.npz")
        assert drawn[0].get_suptitle() == r"a$\nothing$.npz"

    def test_failure_keeps_the_old_picture(self, tmp_path, monkeypatch):
        path = tmp_path / "o.png"
        plot_object(path, OBJ)
        before = path.read_bytes()

        def fail(self, *args, **kwargs):
            raise RuntimeError("no ink")

        monkeypatch.setattr(Figure, "savefig", fail)
        with pytest.raises(RuntimeError, match="no ink"):
            plot_object(path, 2 * OBJ)
        assert path.read_bytes() == before
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(OutputError, match="nowhere"):
            plot_object(tmp_path / "nowhere" / "o.png", OBJ)

    def test_pictures_can_be_drawn_in_threads(self, tmp_path):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: plot_losses(tmp_path / f"{n}.png", HISTORY), range(4)))
        assert len({(tmp_path / f"{n}.png").read_bytes() for n in range(4)}) == 1

    def test_pyplot_is_never_imported(self, tmp_path):
        program = (
            "import sys, numpy\n"
            "from ptycho_backend.plots import plot_object, plot_probe, plot_losses\n"
            "assert 'matplotlib' not in sys.modules\n"
            "plot_object(sys.argv[1], numpy.ones((20, 20)))\n"
            "plot_probe(sys.argv[1], numpy.ones((20, 20)))\n"
            "plot_losses(sys.argv[1], [{'train_loss': 1.0}])\n"
            "assert 'matplotlib.pyplot' not in sys.modules\n"
        )
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "o.png")], check=True)
