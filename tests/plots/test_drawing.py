"""Functions that draw on Axes: crop, extents, scale bars, colour maps, units."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from ptycho_backend import plots
from ptycho_backend.errors import DataError

PIXEL = (1e-8, 1e-8)


@pytest.fixture
def axes():
    return Figure(layout="constrained").subplots()


def scale_bar(axes) -> tuple[float, str]:
    """Return the length of the bar of a map, in its axes, and its text."""
    (bar,) = (artist for artist in axes.artists if isinstance(artist, AnchoredSizeBar))
    return bar.size_bar.get_children()[0].get_width(), bar.txt_label.get_text()


class TestScaleBar:
    def test_the_bar_is_as_long_as_the_known_distance(self, axes):
        """Two bright columns 25 pixels of 10 nm apart are 0.25 µm apart: as long as 1.25 bars of 0.2 µm."""
        obj = np.ones((60, 101))
        obj[:, [30, 55]] = 2.0
        plots.draw_amplitude(axes, obj, pixel_size_m=PIXEL)
        length, text = scale_bar(axes)
        left, right, _, _ = axes.images[0].get_extent()
        columns = left + (np.flatnonzero(axes.images[0].get_array()[0] == 2.0) + 0.5) * (right - left) / 101
        assert text == "0.2 µm"
        assert length == pytest.approx(0.2)
        assert np.diff(columns)[0] / length == pytest.approx(1.25)

    def test_the_bar_on_the_picture_is_as_long_as_its_pixels(self, axes, tmp_path):
        """In the PNG file, a white bar of 20 px has the width of 20 columns of an object of 101."""
        plots.draw_amplitude(axes, np.full((80, 101), 0.5), limits=(0.0, 1.0))
        assert scale_bar(axes) == (20.0, "20 px")
        axes.figure.savefig(tmp_path / "bar.png", dpi="figure")
        frame = axes.get_window_extent()
        pixels = matplotlib.image.imread(tmp_path / "bar.png")[..., :3].min(axis=2)
        inside = pixels[:, int(frame.x0) + 3 : int(frame.x1) - 3][pixels.shape[0] // 2 : int(-frame.y0) - 3]
        widest = max(np.diff(np.flatnonzero(np.diff(np.r_[0, row > 0.99, 0]))[:2]).max(initial=0) for row in inside)
        assert widest == pytest.approx(frame.width * 20 / 101, abs=2.5)

    @pytest.mark.parametrize(
        ("longest", "length"), [(1.0, 1.0), (0.99, 0.5), (0.3, 0.2), (49.0, 20.0), (5e-4, 5e-4), (7e7, 5e7)]
    )
    def test_lengths_are_round(self, longest, length):
        assert plots.round_length(longest) == pytest.approx(length)

    def test_pixels_are_the_unit_without_a_length(self, axes):
        plots.draw_phase(axes, np.exp(1j * np.linspace(0, 1, 400)).reshape(20, 20))
        assert scale_bar(axes) == (5.0, "5 px")
        assert axes.get_xlabel() == "x, px"

    @pytest.mark.parametrize(("pixel_m", "unit"), [(1e-11, "pm"), (1e-10, "nm"), (1e-7, "µm"), (1e-4, "mm")])
    def test_the_unit_fits_the_size(self, axes, pixel_m, unit):
        plots.draw_amplitude(axes, np.ones((40, 50)), pixel_size_m=(pixel_m, pixel_m))
        assert axes.get_xlabel() == f"x, {unit}"
        assert scale_bar(axes)[1].endswith(f" {unit}")


class TestCrop:
    def test_the_picture_is_the_illuminated_rectangle(self, axes):
        coverage = np.full((50, 60), 0.1)
        coverage[10:40, 20:45] = 1.0
        obj = np.arange(3000.0).reshape(50, 60) + 1
        plots.draw_amplitude(axes, obj, coverage, origin_px=(-5.0, 3.0))
        np.testing.assert_array_equal(axes.images[0].get_array(), obj[10:40, 20:45])
        # left, right, bottom, top; pixel centres are integers.
        assert axes.images[0].get_extent() == [22.5, 47.5, 34.5, 4.5]

    def test_a_quarter_of_the_coverage_is_the_threshold(self):
        coverage = np.array([[0.24, 0.26, 1.0, 0.26, 0.24]])
        assert plots.illuminated_part(np.ones((1, 5)), coverage) == (slice(0, 1), slice(1, 4))

    def test_zeros_are_cropped_without_a_coverage(self):
        obj = np.zeros((20, 30), complex)
        obj[3:9, 7:12] = 1j
        assert plots.illuminated_part(obj) == (slice(3, 9), slice(7, 12))
        assert plots.illuminated_part(obj, np.zeros((20, 30))) == (slice(3, 9), slice(7, 12))
        assert plots.illuminated_part(0 * obj) == (slice(0, 20), slice(0, 30))

    def test_dark_rims_do_not_change_the_phase(self):
        """Phase noise of a rim without light neither tilts nor shifts the phase of the rest."""
        obj = np.exp(1j * np.random.default_rng(0).uniform(-3, 3, (60, 60)))
        obj[15:45, 15:45] = np.exp(0.3j)
        coverage = np.zeros((60, 60))
        coverage[15:45, 15:45] = 1.0
        panel = plots.object_figure(obj, coverage).axes[1]
        np.testing.assert_allclose(panel.images[0].get_array(), 0.0, atol=1e-6)

    @pytest.mark.parametrize(("shape", "stacked"), [((40, 120), True), ((40, 50), False), ((120, 40), False)])
    def test_wide_objects_are_stacked(self, shape, stacked):
        figure = plots.object_figure(np.ones(shape))
        figure.draw_without_rendering()
        first, second = (axes.get_window_extent() for axes in figure.axes[:2])
        assert (first.y0 > second.y1) == stacked
        assert (first.x1 < second.x0) == (not stacked)


class TestColours:
    @pytest.mark.parametrize(("span", "name"), [(4.9, "cividis"), (5.5, "twilight")])
    def test_only_phases_that_may_wrap_are_cyclic(self, axes, span, name):
        plots.draw_phase(axes, np.exp(1j * np.zeros((20, 20))), limits=(-span / 2, span / 2))
        assert axes.images[0].get_cmap().name == name
        assert axes.images[0].get_clim() == pytest.approx((-np.pi, np.pi) if name == "twilight" else (-2.45, 2.45))

    def test_colour_bars_have_a_unit(self, axes):
        plots.draw_amplitude(axes, np.full((20, 20), 0.8))
        assert axes.figure.axes[1].get_ylabel() == "amplitude, no unit (mean 0.8)"
        other = Figure().subplots()
        plots.draw_phase(other, np.ones((20, 20)))
        assert other.figure.axes[1].get_ylabel() == "phase, rad"

    def test_the_title_has_name_pixel_and_dose(self):
        assert plots.title_of("run 7", PIXEL, 123456.0) == "run 7 · pixel 10 nm · 1.2·10⁵ photons per pattern"
        assert plots.title_of("run 7") == "run 7"


class TestProbe:
    def test_axes_are_lengths_from_the_middle(self, axes):
        plots.draw_mode(axes, np.ones((32, 32)), PIXEL)
        assert axes.images[0].get_extent() == pytest.approx([-165.0, 155.0, 155.0, -165.0])
        assert scale_bar(axes) == (50.0, "50 nm")

    def test_a_plane_wave_is_a_point_of_its_frequency(self, axes):
        """Four periods in 32 pixels of 10 nm are a spatial frequency of 1 / 80 nm."""
        wave = np.exp(2j * np.pi * 4 * np.arange(32) / 32)[None] * np.ones((32, 1))
        plots.draw_far_field(axes, wave, PIXEL)
        brightness = axes.images[0].get_array().max(axis=2)
        row, column = np.unravel_index(brightness.argmax(), brightness.shape)
        left, right, bottom, top = axes.images[0].get_extent()
        assert left + (column + 0.5) * (right - left) / 32 == pytest.approx(1 / 80)
        assert top + (row + 0.5) * (bottom - top) / 32 == pytest.approx(0.0, abs=1e-12)
        assert axes.get_xlabel() == "x, 1/nm"


class TestPositions:
    GIVEN = np.stack(np.meshgrid(10.0 * np.arange(8), 10.0 * np.arange(9), indexing="ij"), axis=-1).reshape(-1, 2)

    def test_arrows_are_the_moves_without_the_common_one(self, axes):
        moves = np.zeros_like(self.GIVEN)
        moves[::2, 0], moves[1::2, 0] = 1.0, -1.0
        plots.draw_positions(axes, self.GIVEN, self.GIVEN + moves + [30.0, -7.0])
        (arrows,) = (item for item in axes.collections if hasattr(item, "U"))
        assert "moved by 1 px" in axes.get_title()
        assert "5 times" in axes.get_title()
        np.testing.assert_allclose(arrows.U, 0.0, atol=1e-12)
        np.testing.assert_allclose(arrows.V, 5.0 * moves[:, 0], atol=1e-12)
        np.testing.assert_allclose(arrows.get_offsets(), self.GIVEN[:, ::-1])
        assert axes.yaxis_inverted()

    def test_lengths_stand_beside_pixels(self, axes):
        moves = np.zeros_like(self.GIVEN)
        moves[::2, 1], moves[1::2, 1] = 20.0, -20.0
        plots.draw_positions(axes, self.GIVEN, self.GIVEN + moves, PIXEL)
        assert axes.get_title() == "Positions: moved by 20 px, 200 nm (rms)"
        assert axes.get_ylabel() == "y, nm"

    def test_unmoved_positions_have_no_arrows(self, axes):
        plots.draw_positions(axes, self.GIVEN, self.GIVEN + 3.0)
        assert axes.get_title() == "Positions: as given"
        assert not [item for item in axes.collections if hasattr(item, "U")]


class TestCurves:
    def test_the_upper_axis_is_the_inverse_of_a_length(self, axes):
        frequency = np.linspace(0, 1, 11)
        plots.draw_ring_correlation(axes, frequency, 1 - frequency, 0.8, pixel_size_m=PIXEL)
        (upper,) = axes.child_axes
        axes.figure.draw_without_rendering()
        assert upper.get_xlim() == pytest.approx((0.0, 1 / 20))
        assert upper.get_xlabel() == "1/nm"
        assert axes.get_title() == "Fourier ring correlation\n1/7 at 0.80 of Nyquist (period 25 nm)"

    def test_there_is_no_upper_axis_without_a_pixel(self, axes):
        plots.draw_ring_correlation(axes, np.linspace(0, 1, 5), np.ones(5), 1.0, level=0.5)
        assert axes.child_axes == []
        assert axes.get_title() == "Fourier ring correlation\nnever below 0.5, up to 1.00 of Nyquist"

    def test_errors_are_drawn_over_the_iterations(self, axes):
        plots.draw_errors(axes, [3.0, 0.3, 0.03], floor=0.01)
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(1, 3.0), (2, 0.3), (3, 0.03)])
        assert axes.get_yscale() == "log"
        assert axes.lines[1].get_ydata()[0] == 0.01

    def test_no_errors_are_refused(self, axes):
        with pytest.raises(DataError, match="one error per iteration"):
            plots.draw_errors(axes, [])


def test_pictures_import_nothing_that_computes_results():
    """Images draw themselves, so pictures stand below them."""
    import ast
    from pathlib import Path

    allowed = ("errors", "runtime.", "plots", "data.output", "data.phase_plane")
    for path in Path(plots.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ptycho_backend."):
                assert node.module.removeprefix("ptycho_backend.").startswith(allowed), f"{path.name}: {node.module}"
