"""CXI files: axes, signs and units of the sample's translation, masks, and missing datasets."""

import h5py
import numpy as np
import pytest

from ptycho_backend.data.readers import load_scan
from ptycho_backend.errors import DataError

N = 8
DETECTOR = "entry_1/instrument_1/detector_1"
SOURCE = "entry_1/instrument_1/source_1"
TRANSLATION = "entry_1/sample_1/geometry_1/translation"
ENERGY_J = 1000 * 1.602176634e-19  # 1 keV, 1.23984198 nm
# Object pixels for 0.1 m distance: 1.23984198e-9 · 0.1 / (8 · 50e-6) along y, / (8 · 25e-6) along x.
PIXEL_Y_M, PIXEL_X_M = 3.09960496e-7, 6.19920992e-7
TRANSLATION_M = np.array([[0.0, 0.0, 0.0], [6.0, 2.0, 0.0], [-3.0, 5.0, 0.0]]) * 1e-6  # x, y, z


@pytest.fixture
def saved(tmp_path):
    def save(**changes):
        values = {
            "entry_1/data_1/data": np.full((3, N, N), 4, dtype=np.uint16),
            f"{DETECTOR}/distance": 0.1,
            f"{DETECTOR}/y_pixel_size": 50e-6,
            f"{DETECTOR}/x_pixel_size": 25e-6,
            f"{SOURCE}/energy": ENERGY_J,
            f"{SOURCE}/illumination": np.ones((N, N), dtype=complex),
            TRANSLATION: TRANSLATION_M,
        }
        values |= {key.replace("__", "/"): value for key, value in changes.items()}
        with h5py.File(tmp_path / "run42.cxi", "w") as file:
            for key, value in values.items():
                if value is not None:
                    file[key] = value
        return tmp_path / "run42.cxi"

    return save


def test_object_pixel_and_positions_in_absolute_numbers(saved):
    scan = load_scan(saved())
    np.testing.assert_allclose(scan.pixel_size_m, [PIXEL_Y_M, PIXEL_X_M], rtol=1e-8)
    # A sample that moves up (+y) and to the left (+x) moves the beam down its rows and right along its columns.
    np.testing.assert_allclose(
        scan.positions_px,
        [[0, 0], [2e-6 / PIXEL_Y_M, 6e-6 / PIXEL_X_M], [5e-6 / PIXEL_Y_M, -3e-6 / PIXEL_X_M]],
        rtol=1e-8,
    )
    assert scan.measurement == "counts"
    assert scan.obj is None
    assert scan.attributes["photon_energy_eV"] == pytest.approx(1000)
    assert scan.attributes["detector_object_distance_m"] == 0.1


def test_each_axis_of_an_oblong_detector_has_its_own_object_pixel(saved):
    oblong = np.full((3, N, 2 * N), 4, dtype=np.uint16)
    path = saved(**{"entry_1/data_1/data": oblong, f"{SOURCE}/illumination": np.ones((N, 2 * N), dtype=complex)})
    # Twice as many columns: half the object pixel, and the crop to N columns doubles it again.
    np.testing.assert_allclose(load_scan(path, N=N).pixel_size_m, [PIXEL_Y_M, PIXEL_X_M], rtol=1e-8)
    np.testing.assert_allclose(load_scan(path, N=2 * N).pixel_size_m, [PIXEL_Y_M / 2, PIXEL_X_M / 2], rtol=1e-8)


@pytest.mark.parametrize("transpose", [False, True])
def test_basis_vectors_set_the_axes(saved, transpose):
    upside_down = np.array([[0, 50e-6, 0], [-25e-6, 0, 0]])  # rows go up
    basis = upside_down.T if transpose else upside_down
    path = saved(**{f"{DETECTOR}/basis_vectors": basis, f"{DETECTOR}/y_pixel_size": None})
    np.testing.assert_allclose(load_scan(path).positions_px[1], [-2e-6 / PIXEL_Y_M, 6e-6 / PIXEL_X_M], rtol=1e-8)


def test_basis_vectors_may_swap_the_axes(saved):
    swapped = np.array([[-25e-6, 0, 0], [0, -50e-6, 0]])  # the first array axis runs along x
    scan = load_scan(saved(**{f"{DETECTOR}/basis_vectors": swapped}))
    np.testing.assert_allclose(scan.pixel_size_m, [PIXEL_X_M, PIXEL_Y_M], rtol=1e-8)
    np.testing.assert_allclose(scan.positions_px[1], [6e-6 / PIXEL_X_M, 2e-6 / PIXEL_Y_M], rtol=1e-8)


@pytest.mark.parametrize(
    "basis",
    [
        [[0, -50e-6, 0], [-25e-6, -25e-6, 0]],
        [[0, -50e-6, 20e-6], [-25e-6, 0, 0]],
        [[0, 0, 0], [-25e-6, 0, 0]],
        [[0, -50e-6, 0]],
    ],
)
def test_an_oblique_detector_is_refused(saved, basis):
    with pytest.raises(DataError, match=r"basis_vectors' of '.*run42\.cxi"):
        load_scan(saved(**{f"{DETECTOR}/basis_vectors": np.array(basis, dtype=float)}))


def test_wavelength_replaces_a_missing_energy(saved):
    scan = load_scan(saved(**{f"{SOURCE}/energy": None, f"{SOURCE}/wavelength": 1.23984198e-9}))
    np.testing.assert_allclose(scan.pixel_size_m, [PIXEL_Y_M, PIXEL_X_M], rtol=1e-8)


def test_mask_values_zero_and_signal_are_good(saved):
    mask = np.zeros((N, N), dtype=np.uint32)
    mask[0, 1], mask[2, 3], mask[4, 5] = 1, 0x1000, 0x1080
    scan = load_scan(saved(**{f"{DETECTOR}/mask": mask}))
    np.testing.assert_array_equal(np.argwhere(~scan.mask), [[0, 1], [4, 5]])


def test_alternative_paths_of_patterns_and_translations(saved):
    path = saved(
        **{
            "entry_1/data_1/data": None,
            f"{DETECTOR}/data": np.full((3, N, N), 5, dtype=">i4"),
            TRANSLATION: None,
            "entry_1/data_1/translation": TRANSLATION_M[:, :2],
            f"{SOURCE}/illumination": None,
            f"{SOURCE}/probe": np.ones((2, N, N), dtype=complex),
        }
    )
    scan = load_scan(path)
    assert scan.counts().max() == 5
    assert scan.probe.shape == (2, N, N)
    np.testing.assert_allclose(scan.positions_px[2], [5e-6 / PIXEL_Y_M, -3e-6 / PIXEL_X_M], rtol=1e-8)


def test_first_plane_of_a_varying_probe_is_used(saved, caplog):
    probe = np.stack([np.full((3, N, N), 1 + 0j), np.full((3, N, N), 2 + 0j)])
    scan = load_scan(saved(**{f"{SOURCE}/illumination": probe}))
    np.testing.assert_array_equal(scan.probe, np.ones((3, N, N)))
    assert "varies over the scan (2 planes): the first is used" in caplog.text


def test_equal_distances_per_pattern_are_accepted(saved):
    assert load_scan(saved(**{f"{DETECTOR}/distance": np.full(3, 0.1)})).pixel_size_m[0] > 0
    with pytest.raises(DataError, match="distance"):
        load_scan(saved(**{f"{DETECTOR}/distance": np.array([0.1, 0.1, 0.2])}))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("entry_1/data_1/data", None, "diffraction patterns"),
        ("entry_1/data_1/data", np.ones((N, N)), "data_1/data"),
        (TRANSLATION, None, "sample_1/geometry_1/translation"),
        (TRANSLATION, np.ones(3), "sample_1/geometry_1/translation"),
        (TRANSLATION, np.ones((2, 3)), "2 positions"),
        (f"{DETECTOR}/distance", None, "detector_1/distance"),
        (f"{DETECTOR}/distance", -0.1, "detector_1/distance"),
        (f"{DETECTOR}/distance", np.nan, "detector_1/distance"),
        (f"{DETECTOR}/y_pixel_size", None, "detector_1/y_pixel_size"),
        (f"{DETECTOR}/x_pixel_size", 0.0, "detector_1/x_pixel_size"),
        (f"{DETECTOR}/mask", np.zeros((3, N, N), dtype=int), "detector_1/mask"),
        (f"{DETECTOR}/mask", np.zeros((N, N)), "detector_1/mask"),
        (f"{SOURCE}/energy", None, "source_1/energy"),
        (f"{SOURCE}/energy", 8000.0, "joules"),
    ],
)
def test_errors_name_the_missing_or_wrong_dataset(saved, key, value, words):
    with pytest.raises(DataError) as raised:
        load_scan(saved(**{key: value}))
    assert words in str(raised.value)
    assert "run42.cxi" in str(raised.value)
