"""File of an image: everything that is saved is read back; files of others and of earlier versions (data 3.4, 14)."""

import dataclasses

import h5py
import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.data.image import Experiment, Image, load_image
from ptycho_backend.data.product import Product, read_product, write_product
from ptycho_backend.errors import DataError, OutputError

N, COUNT = 8, 5
PIXEL_M = (11e-9, 13e-9)


@pytest.fixture
def image(rng):
    """Return an image in which no field has its default value."""

    def field(*shape):
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)

    experiment = Experiment(
        probe=field(2, N, N),
        positions_px=rng.uniform(-9, 9, (COUNT, 2)),
        windows_px=rng.uniform(-9, 9, (COUNT, 2)),
        scales=rng.uniform(0.5, 2, COUNT),
        background=0.25,
        unfitted=("flux",),
        left_out=(1, 3),
        orientation="-x+y",
    )
    scan = {"excluded_patterns": [2], "photon_energy_eV": 8800.0, "probe_guess": "patterns", "sample": "étoile"}
    provenance = {"source": "a/b.npz", "scan": scan, "seed": 4, "inference": {"iterations": None, "start": "flat"}}
    coverage = rng.uniform(0, 3, (20, 24)).astype(np.float32)
    facts = {"pixel_size_m": PIXEL_M, "errors": (0.5, 0.125), "name": "b.npz", "photons_per_pattern": 1234.5}
    return Image(
        field(20, 24), coverage, (-3.5, 2.25), experiment, **facts, provenance=provenance, counts_per_intensity=77.0
    )


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def assert_equal(one, other):
    """Compare every field of two images, bit by bit."""
    for first, second in ((one, other), (one.experiment, other.experiment)):
        assert (first is None) == (second is None)
        for name, value in vars(first).items() if first is not None else ():
            if isinstance(value, np.ndarray):
                assert value.dtype == getattr(second, name).dtype, name
                np.testing.assert_array_equal(value, getattr(second, name), name)
            elif name != "experiment":
                assert value == getattr(second, name), name
                assert type(value) is type(getattr(second, name)), name


def change(path, edit):
    with h5py.File(path, "a") as file:
        edit(file["ptychopinn"])
    return path


class TestRoundTrip:
    def test_every_field_comes_back(self, image, tmp_path):
        assert image.save(tmp_path / "x.h5") == tmp_path / "x.h5"
        assert_equal(image, load_image(tmp_path / "x.h5"))

    def test_a_second_saving_changes_nothing(self, image, tmp_path):
        once = load_image(image.save(tmp_path / "once.h5"))
        assert_equal(image, load_image(once.save(tmp_path / "twice.hdf5")))

    def test_the_comparison_can_fail(self, image):
        with pytest.raises(AssertionError):
            assert_equal(image, dataclasses.replace(image, errors=(0.5,)))
        with pytest.raises(AssertionError):
            assert_equal(image, dataclasses.replace(image, experiment=None))

    def test_image_without_experiment(self, image, tmp_path):
        bare = Image(image.obj, image.coverage, (1.0, 2.0))
        assert_equal(bare, dataclasses.replace(load_image(bare.save(tmp_path / "bare.h5")), name=""))

    def test_an_unfinished_image_stays_unfinished(self, image, tmp_path, caplog):
        unfinished = dataclasses.replace(image, provenance={**image.provenance, "incomplete": "iterations: 3 of 9"})
        back = load_image(unfinished.save(tmp_path / "x.h5"))
        assert back.provenance == unfinished.provenance
        assert "incomplete" in caplog.text

    def test_reconstruction_can_be_assessed_after_loading(self, tmp_path):
        scan = pb.simulate_scan(N=32, n_positions=36, seed=1)
        image = pb.reconstruct(scan, device="cpu", iterations=3, probe_iterations=0)
        back = pb.load_image(image.save(tmp_path / "x.h5"))
        assert_equal(image, back)
        options = pb.InferenceConfig(half_datasets=False, probe_iterations=0)
        one, other = (pb.assess(scan, each, inference=options) for each in (image, back))
        assert one.residual == other.residual


class TestProduct:
    def test_other_programs_read_a_product_in_photons(self, image, tmp_path):
        product = read_product(image.save(tmp_path / "x.h5"))
        np.testing.assert_allclose(product.positions_px, image.positions_px, atol=1e-9)
        np.testing.assert_allclose(product.probe, image.probe * np.sqrt(77.0), rtol=1e-6)
        assert product.pixel_size_m == pytest.approx(PIXEL_M)
        assert product.indexes.tolist() == [0, 1, 3, 4, 5]  # number 2 is excluded
        assert product.attributes["photon_energy_eV"] == 8800.0
        assert product.attributes["background_photons_per_pixel"] == 0.25 * 77.0
        with h5py.File(tmp_path / "x.h5") as file:
            assert file.attrs["name"] == "b.npz"
            assert file.attrs["probe_photon_count"] == 1234.5

    def test_product_of_another_program(self, image, tmp_path):
        probe = image.probe * np.float32(3)
        indexes, attributes = np.arange(COUNT), {"photon_energy_eV": 5e3, "probe_photon_count": 50.0}
        costs = np.empty(0)
        product = Product(image.positions_px, probe, image.obj, (0.0, 0.0), PIXEL_M, indexes, costs, attributes)
        write_product(tmp_path / "foreign.h5", product)
        with h5py.File(tmp_path / "foreign.h5", "a") as file:
            del file["ptychopinn"]
        back = load_image(tmp_path / "foreign.h5")
        assert np.sum(np.abs(back.probe) ** 2) == pytest.approx((N / 2) ** 2, rel=1e-5)
        np.testing.assert_allclose(back.probe * np.sqrt(back.counts_per_intensity), probe, rtol=1e-5)
        np.testing.assert_array_equal(back.coverage, np.ones(back.shape, np.float32))
        assert back.provenance["scan"] == {"photon_energy_eV": 5e3}
        assert (back.photons_per_pattern, back.errors, back.name) == (50.0, (), "foreign")
        assert back.experiment.scales.tolist() == [1.0] * COUNT
        assert_equal(back, load_image(back.save(tmp_path / "again.h5")))

    def test_file_of_an_earlier_version(self, image, tmp_path):
        """Without the experiment's group: flux and background come from what those files hold."""
        path = image.save(tmp_path / "x.h5")

        def earlier(group):
            del group["experiment"], group["errors"], group["attributes"]
            group["attributes"] = (
                '{"background_photons_per_pixel": 12.0, "name": "run", "scan": {"a": 1}, "backend": "b"}'
            )

        back = load_image(change(path, earlier))
        np.testing.assert_allclose(back.experiment.scales, image.experiment.scales)
        np.testing.assert_allclose(back.positions_px, image.positions_px, atol=1e-9)
        np.testing.assert_array_equal(back.coverage, image.coverage)
        assert back.experiment.background * back.counts_per_intensity == pytest.approx(12.0)
        assert back.provenance == {"scan": {"a": 1}, "backend": "b"}


class TestPaths:
    def test_run_folder(self, image, tmp_path):
        image.save(tmp_path / "reconstruction.h5")
        assert_equal(image, load_image(tmp_path))

    def test_existing_file_is_kept(self, image, tmp_path):
        (tmp_path / "x.h5").write_text("mine")
        with pytest.raises(OutputError, match="replaced only on request"):
            image.save(tmp_path / "x.h5")
        assert (tmp_path / "x.h5").read_text() == "mine"
        image.save(tmp_path / "x.h5", overwrite=True)
        assert_equal(image, load_image(tmp_path / "x.h5"))

    def test_other_suffix(self, image, tmp_path):
        with pytest.raises(OutputError, match="to_tiff"):
            image.save(tmp_path / "x.png")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("missing.h5", "did you mean 'missin.h5'"),
            ("nowhere/x.h5", "does not exist"),
            ("empty", "without reconstruction.h5"),
            ("text.txt", "load_scan reads scans"),
            ("text.h5", "whole HDF5 file"),
            ("scan.h5", "without object, probe_position_y_m, probe_position_x_m"),
            ("a\0b.h5", "a\\x00b.h5"),
            ("a\nb.h5", "a\\nb.h5"),
            ("x" * 300 + ".h5", "File name too long"),
        ],
    )
    def test_everything_else_is_an_error_in_four_lines(self, tmp_path, name, words):
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty/other.h5").touch()
        for file in ("text.txt", "text.h5", "missin.h5"):
            (tmp_path / file).write_text("text")
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            file["diffraction"] = np.ones(3)
        with pytest.raises(DataError) as caught:
            load_image(tmp_path / name)
        assert words in str(caught.value)
        assert len(str(caught.value).splitlines()) == 4


class TestDamage:
    @pytest.mark.parametrize(
        ("dataset", "value", "words"),
        [
            ("coverage", np.ones((3, 3)), "(3, 3)"),
            ("coverage", np.full((20, 24), np.nan), "not finite"),
            ("errors", np.ones((2, 2)), "(2, 2)"),
            ("experiment/scales", np.ones(COUNT + 1), f"({COUNT + 1},)"),
            ("experiment/probe", np.ones((1, N, N), np.complex64), f"(1, {N}, {N})"),
            ("experiment/positions_px", np.ones((COUNT, 3)), f"({COUNT}, 3)"),
        ],
    )
    def test_arrays_that_do_not_fit(self, image, tmp_path, dataset, value, words):
        path = image.save(tmp_path / "x.h5")

        def damage(group):
            del group[dataset]
            group[dataset] = value

        with pytest.raises(DataError) as caught:
            load_image(change(path, damage))
        for word in (words, dataset, "x.h5"):
            assert word in str(caught.value)

    @pytest.mark.parametrize(
        ("values", "word"),
        [
            ('{"image": 3}', "image"),
            ('{"image": {"experiment": [1]}}', "image"),
            ('{"image": {"photons_per_pattern": "many"}}', "photons_per_pattern"),
            ('{"image": {"counts_per_intensity": -1}}', "counts_per_intensity"),
            ('{"image": {"experiment": {"background": {"a": 1}}}}', "background"),
            ('{"background_photons_per_pixel": "dark"}', "background_photons_per_pixel"),
        ],
    )
    def test_values_that_are_not_plain(self, image, tmp_path, values, word):
        path = image.save(tmp_path / "x.h5")

        def damage(group):
            del group["attributes"]
            group["attributes"] = values

        with pytest.raises(DataError) as caught:
            load_image(change(path, damage))
        assert f"'{word}'" in str(caught.value)

    def test_unknown_entries_of_a_later_version_are_ignored(self, image, tmp_path):
        path = image.save(tmp_path / "x.h5")

        def later(group):
            group["experiment/drift_px"] = np.ones(3)

        assert_equal(image, load_image(change(path, later)))

    def test_provenance_that_is_not_plain(self, image, tmp_path):
        with pytest.raises(DataError, match="plain values"):
            dataclasses.replace(image, provenance={"a": object()}).save(tmp_path / "x.h5")
        assert list(tmp_path.iterdir()) == []
