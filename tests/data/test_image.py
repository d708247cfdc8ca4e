"""Image as a result: what it holds, and what it gives to figures, TIFF, xarray and napari (data 14)."""

import builtins
import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import ptycho_backend as pb
from ptycho_backend.data.image import Experiment, Image, well_covered
from ptycho_backend.errors import ConfigError, OutputError
from ptycho_backend.events import StageEvent

PIXEL_M = (10e-9, 20e-9)


@pytest.fixture
def image():
    """Return a phase ramp with a bump, uncovered in its first rows."""
    y, x = np.indices((40, 48))
    obj = 0.8 * np.exp(1j * (0.4 + 0.02 * y - 0.03 * x + 0.5 * np.exp(-((y - 24) ** 2 + (x - 24) ** 2) / 18)))
    coverage = np.ones((40, 48), np.float32)
    obj[:4], coverage[:4] = 0, 0
    probe = np.stack([np.full((8, 8), 2), np.full((8, 8), 1j)]).astype(np.complex64)
    positions = np.array([[1.0, 2.0], [3.0, 5.0], [7.0, 8.0]])
    experiment = Experiment(probe, positions, positions, np.array([1.0, 2.0, 1.0]))
    return Image(obj.astype(np.complex64), coverage, (-5.0, 7.5), experiment, PIXEL_M, (0.5, 0.1), "a.npz", 1e4)


class TestFields:
    def test_views_of_the_experiment(self, image):
        assert image.shape == (40, 48)
        assert image.probe is image.experiment.probe
        assert image.positions_px is image.experiment.positions_px
        np.testing.assert_allclose(image.probe_shares, [0.8, 0.2])

    def test_without_experiment(self, image):
        bare = dataclasses.replace(image, experiment=None)
        assert (bare.probe, bare.positions_px, bare.probe_shares) == (None, None, None)

    def test_well_covered_part_keeps_everything_else(self, image):
        part = well_covered(image)
        assert part.shape == (36, 48)
        assert part.origin_px == (-1.0, 7.5)
        for name in vars(image).keys() - {"obj", "coverage", "origin_px"}:
            assert getattr(part, name) is getattr(image, name)

    def test_reconstruction_fills_every_field(self):
        scan, seen = pb.simulate_scan(N=32, n_positions=49, seed=2), []

        def on_event(event):
            if isinstance(event, StageEvent) and event.stage == "iterations" and event.image is not None:
                seen.append(event.image())

        image = pb.reconstruct(scan, device="cpu", iterations=3, probe_iterations=0, on_event=on_event)
        assert len(image.errors) == 3
        assert image.errors[2] < image.errors[0]
        assert image.pixel_size_m == scan.pixel_size_m
        assert image.name == scan.source
        assert image.photons_per_pattern == pytest.approx(float(scan.patterns.sum() / len(scan)))
        assert image.provenance["inference"]["iterations"] == 3
        assert image.provenance["versions"]["ptychopinn"] == pb.__version__
        assert image.provenance["scan"] == scan.attributes
        assert (image.provenance["seed"], image.provenance["start"]) == (0, "flat")
        photons = np.sum(np.abs(image.probe) ** 2) * image.counts_per_intensity
        assert photons == pytest.approx(image.photons_per_pattern, rel=1e-4)
        assert len(seen) == 3
        assert {unfinished.pixel_size_m for unfinished in seen} == {scan.pixel_size_m}
        np.testing.assert_array_equal(seen[-1].obj, image.obj)


class TestFigure:
    def test_title_and_panels(self, image):
        figure = image.plot()
        assert figure.get_suptitle() == "a.npz · pixel 10 nm × 20 nm (y, x) · 1.0·10⁴ photons per pattern"
        titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
        assert [title.split()[0] for title in titles] == ["Amplitude", "Phase"]

    def test_pyplot_is_not_imported(self, image, monkeypatch):
        monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
        image.plot()
        image._repr_html_()
        assert "matplotlib.pyplot" not in sys.modules


class TestTiff:
    def test_pages_and_pixel(self, image, tmp_path):
        path = image.to_tiff(tmp_path / "x.tif")
        with tifffile.TiffFile(path) as file:
            amplitude, phase = file.asarray()
            tags = file.pages[0].tags
            per_cm = [tags[name].value[0] / tags[name].value[1] for name in ("XResolution", "YResolution")]
            assert tags["ResolutionUnit"].value == 3  # centimetre
            metadata = file.ome_metadata
        assert (amplitude.dtype, phase.dtype) == (np.float32, np.float32)
        assert per_cm == pytest.approx([1e-2 / 20e-9, 1e-2 / 10e-9], rel=1e-6)
        for words in (
            'PhysicalSizeX="0.02"',
            'PhysicalSizeY="0.01"',
            'Name="amplitude"',
            'Name="phase"',
            'Name="a.npz"',
        ):
            assert words in metadata
        np.testing.assert_allclose(amplitude, np.abs(image.obj), rtol=1e-6)

    def test_phase_has_neither_piston_nor_ramp(self, image, tmp_path):
        phase = tifffile.imread(image.to_tiff(tmp_path / "x.tiff"))[1]
        rim = phase[[6, 6, -1, -1], [0, -1, 0, -1]]
        assert np.ptp(np.angle(image.obj[[6, 6, -1, -1], [0, -1, 0, -1]])) > 1.0
        assert np.ptp(rim) < 0.1
        assert phase[24, 24] - rim.mean() == pytest.approx(0.5, abs=0.06)
        assert not phase[:4].any()

    def test_unknown_pixel_writes_no_size(self, image, tmp_path):
        path = dataclasses.replace(image, pixel_size_m=None).to_tiff(tmp_path / "x.tif")
        with tifffile.TiffFile(path) as file:
            assert "PhysicalSize" not in file.ome_metadata
            assert file.pages[0].tags["ResolutionUnit"].value == 1  # none

    def test_suffix_and_existing_file(self, image, tmp_path):
        with pytest.raises(OutputError, match="suffix"):
            image.to_tiff(tmp_path / "x.png")
        image.to_tiff(tmp_path / "x.tif")
        with pytest.raises(OutputError, match="replaced only on request"):
            image.to_tiff(tmp_path / "x.tif")
        assert [item.name for item in tmp_path.iterdir()] == ["x.tif"]


class TestXarray:
    def test_variables_and_coordinates_in_metres(self, image):
        pytest.importorskip("xarray")
        data = image.to_xarray()
        np.testing.assert_array_equal(data["object"].values, image.obj)
        assert data.y.attrs["units"] == data.positions.attrs["units"] == "m"
        assert float(data.y[0]) == pytest.approx(-5.0 * 10e-9)
        assert float(data.x[1]) == pytest.approx(8.5 * 20e-9)
        np.testing.assert_allclose(data.positions.sel(axis="x"), image.positions_px[:, 1] * 20e-9)
        np.testing.assert_allclose(data.relative_flux, [1, 4, 1])
        assert data.attrs == {"name": "a.npz", "photons_per_pattern": 1e4}

    def test_pixels_where_the_pixel_size_is_unknown(self, image):
        pytest.importorskip("xarray")
        data = dataclasses.replace(image, pixel_size_m=None, experiment=None).to_xarray()
        assert data.x.attrs["units"] == "px"
        assert data.x.values[0] == 7.5
        assert "probe" not in data

    def test_missing_package_is_named_with_its_extra(self, image, monkeypatch):
        real = builtins.__import__

        def without(name, *arguments, **keywords):
            if name == "xarray":
                raise ModuleNotFoundError(name=name)
            return real(name, *arguments, **keywords)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ConfigError, match=r"ptychopinn\[xarray\]"):
            image.to_xarray()


class TestNapari:
    def test_layers_lie_on_each_other(self, image):
        (amplitude, first, kind), (_, second, _), (positions, points, points_kind) = image.to_layers()
        assert (kind, points_kind) == ("image", "points")
        np.testing.assert_allclose(amplitude, np.abs(image.obj), rtol=1e-6)
        assert first["scale"] == second["scale"] == points["scale"] == pytest.approx([0.01, 0.02])
        assert first["translate"] == pytest.approx([-0.05, 0.15])
        assert "translate" not in points
        assert positions is image.positions_px
        assert first["metadata"] == {"unit": "µm"}

    def test_pixels_without_a_pixel_size(self, image):
        (_, settings, _), *_ = dataclasses.replace(image, pixel_size_m=None).to_layers()
        assert settings["scale"] == [1.0, 1.0]
        assert settings["metadata"] == {"unit": "px"}


def test_the_guide_runs_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/how-to/images.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    exec(compile(code, "images.md", "exec"), {})
    assert "<Image 'simulation (seed 1)'" in capsys.readouterr().out
    assert {item.name for item in tmp_path.iterdir()} == {"image.h5", "image.png", "image.tif"}
    for name in vars(pb.load_image("image.h5")).keys() - {"counts_per_intensity"}:
        assert f"`{name}`" in page, name
