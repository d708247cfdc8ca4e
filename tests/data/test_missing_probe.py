"""Scans without a probe guess, and probes whose middle stands in the corner of their array (spec: data 2.10, 2.11)."""

import dataclasses

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate1d

import ptycho_backend as pb
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.probe_guess import FROM_PATTERNS, PROBE_GUESS, guess_of, is_split
from ptycho_backend.data.product import Product, read_product, write_product
from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.selection import examined
from ptycho_backend.errors import DataError
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.simulation.probes import PROBES

N, COUNT, SIDE = 32, 64, 48
AXES = (-2, -1)
NO_GUESS = "no probe guess"


@pytest.fixture(scope="module")
def scan():
    """Return a scan of 64 patterns with 1e5 photons each."""
    return pb.simulate_scan(N=N, n_positions=COUNT, seed=3, photons_per_pattern=1e5)


def without_guess(scan, **changes):
    """Return the scan with other patterns or mask, and without its probe."""
    fields = {name: getattr(scan, name) for name in ("patterns", "positions_px", "measurement", "mask", "source")}
    return pb.Scan(**fields | changes)


def likeness(one, two):
    """Return the overlap of two probes (mode, y, x) of one mode, from 0 to 1."""
    return abs(np.vdot(one, two)) / np.linalg.norm(one) / np.linalg.norm(two)


# The guess


@pytest.mark.parametrize(("value", "measurement"), [(9.0, "counts"), (3.0, "amplitude")])
def test_uniform_patterns_give_one_bright_pixel_in_root_counts(value, measurement):
    guess = guess_of(np.full((5, N, N), value), np.ones((N, N), dtype=bool), measurement)
    expected = np.zeros((1, N, N))
    expected[0, N // 2, N // 2] = 3.0 * N  # its energy is the 9·N² counts of a pattern
    np.testing.assert_allclose(guess, expected, atol=1e-4)


def test_the_far_field_of_the_guess_has_the_mean_pattern(scan):
    guess = without_guess(scan).probe
    assert guess.shape == (1, N, N)
    assert guess.dtype == np.complex64
    assert (np.abs(guess) ** 2).sum() == pytest.approx(scan.counts().sum(axis=(1, 2)).mean(), rel=1e-2)
    pattern, expected = np.abs(far_field(guess[0])) ** 2, scan.counts().mean(axis=0, dtype=np.float64)
    for axis in (0, 1):  # smoothed by 1 px, root mean square
        expected = correlate1d(expected, np.array([1, 4, 6, 4, 1]) / 16, axis, mode="nearest")
    np.testing.assert_allclose(pattern[2:-2, 2:-2], expected[2:-2, 2:-2], rtol=1e-3, atol=1e-4)
    assert np.abs(guess[0]).argmax() == N * (N // 2) + N // 2


def test_the_energy_is_the_mean_of_patterns_spread_over_the_scan():
    patterns = np.zeros((1200, 4, 4), dtype=np.uint16)
    patterns[600:] = 8  # the first 500 are dark
    guess = guess_of(patterns, np.ones((4, 4), dtype=bool), "counts")
    assert (np.abs(guess) ** 2).sum() == pytest.approx(4.0 * 16)


@pytest.mark.parametrize("content", [np.nan, -1.0, 1e30])
def test_masked_pixels_change_nothing(scan, content):
    mask = np.ones((N, N), dtype=bool)
    mask[14:18, 9], mask[3, 3] = False, False
    patterns = scan.counts().copy()
    guess = without_guess(scan, patterns=patterns, mask=mask).probe
    patterns = patterns.copy()
    patterns[:, ~mask] = content
    np.testing.assert_array_equal(guess, without_guess(scan, patterns=patterns, mask=mask).probe)
    assert likeness(guess, without_guess(scan).probe) > 0.99  # filled in from the neighbours


def test_a_scan_without_photons_is_refused():
    with pytest.raises(DataError, match="some values above zero"):
        pb.Scan(np.zeros((2, N, N)), np.zeros((2, 2)))


# The scan


def test_a_scan_in_memory_remembers_its_guess_and_warns_once(scan, caplog):
    mine = {"beamline": "2-ID-D"}
    made = without_guess(scan, attributes=mine)
    assert made.attributes == {"beamline": "2-ID-D", "probe_guess": "patterns"}
    assert mine == {"beamline": "2-ID-D"}
    examined(made).subset(np.arange(9))
    assert caplog.text.count(NO_GUESS) == 1
    for word in ("'memory'", "without defocus", "probe_iterations"):
        assert word in caplog.text.replace(scan.source, "memory")


def test_a_given_probe_is_no_guess_from_the_patterns(scan, caplog):
    assert PROBE_GUESS not in scan.attributes
    replaced = dataclasses.replace(without_guess(scan), probe=scan.probe)
    assert PROBE_GUESS not in replaced.attributes
    np.testing.assert_array_equal(examined(replaced).probe, scan.probe)
    assert caplog.text.count(NO_GUESS) == 1


def test_a_guess_survives_a_file(scan, tmp_path, caplog):
    made = without_guess(scan)
    caplog.clear()
    back = load_scan(write_npz(made, tmp_path / "a.npz"))
    np.testing.assert_array_equal(back.probe, made.probe)
    assert back.attributes[PROBE_GUESS] == FROM_PATTERNS
    assert caplog.text == ""


def test_bad_pixels_and_mad_patterns_do_not_spoil_the_guess(scan):
    patterns = np.asarray(scan.patterns).astype(np.uint32)
    patterns[:, 5, 6] = np.random.default_rng(0).poisson(50_000, COUNT)
    patterns[17] = 3000
    made = without_guess(scan, patterns=patterns)
    found = examined(made)
    assert not found.mask[5, 6]
    assert len(found) == COUNT - 1
    clean = without_guess(scan).probe
    assert likeness(made.probe, clean) < 0.8  # why the guess is made again
    assert likeness(found.probe, clean) > 0.99
    assert found.attributes[PROBE_GUESS] == FROM_PATTERNS


def test_the_image_is_as_good_as_with_the_exact_probe():
    exact = pb.simulate_scan(N=N, n_positions=144, seed=1)
    made = without_guess(exact, obj=exact.obj, obj_origin_px=exact.obj_origin_px)
    assert likeness(made.probe, exact.probe) < 0.9  # the truth is out of focus
    best, found = (pb.evaluate(pb.reconstruct(each), each) for each in (exact, made))
    assert found.amplitude_psnr_db > max(best.amplitude_psnr_db - 1.0, 44.0)
    assert found.phase_psnr_db > max(best.phase_psnr_db - 1.0, 49.0)


# Files


def save_npz(folder, scan, **changes):
    y, x = scan.positions_px.T
    np.savez(folder / "a.npz", **{"diff3d": scan.patterns, "xcoords": x, "ycoords": y} | changes)
    return load_scan(folder / "a.npz")


def save_training(folder, scan, **changes):
    y, x = scan.positions_px.T - 0.5  # middles of the windows
    fields = {"patterns": scan.patterns, "probe_position_y_px": y, "probe_position_x_px": x}
    with h5py.File(folder / "a.h5", "w") as file:
        for name, value in (fields | changes).items():
            file[name] = value
    return load_scan(folder / "a.h5")


def save_product(folder, scan, **changes):
    obj = np.ones((SIDE, SIDE), dtype=np.complex64)
    rows = np.arange(len(scan))
    product = Product(scan.positions_px, scan.probe, obj, (3.0, -4.0), None, rows, np.empty(0))
    write_product(folder / "product.h5", product)
    with h5py.File(folder / "product.h5", "a") as file:
        del file["probe"]
        for name, value in changes.items():
            file[name] = value
    with h5py.File(folder / "diffraction.h5", "w") as file:
        file["patterns"] = scan.patterns
    return load_scan(folder / "product.h5", patterns=folder / "diffraction.h5")


def save_cxi(folder, scan, **changes):
    pixel_m = 1.23984198e-9 * 0.1 / (N * 50e-6)  # object pixel at 1 keV
    detector, source = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"
    fields = {
        "entry_1/data_1/data": scan.patterns,
        f"{detector}/distance": 0.1,
        f"{detector}/y_pixel_size": 50e-6,
        f"{detector}/x_pixel_size": 50e-6,
        f"{source}/energy": 1.602176634e-16,
        "entry_1/sample_1/geometry_1/translation": scan.positions_px[:, ::-1] * pixel_m,
    }
    with h5py.File(folder / "a.cxi", "w") as file:
        for name, value in fields.items():
            file[name] = value
        for name, value in changes.items():
            file[f"{source}/{name}"] = value
    return load_scan(folder / "a.cxi")


FORMATS = {
    "npz": (save_npz, "probeGuess"),
    "training": (save_training, "probe"),
    "product": (save_product, "probe"),
    "cxi": (save_cxi, "illumination"),
}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("empty", [False, True])
def test_files_without_a_probe_get_in(kind, empty, scan, tmp_path, caplog):
    save, key = FORMATS[kind]
    found = save(tmp_path, scan, **({key: np.empty((0, 0))} if empty else {}))
    np.testing.assert_allclose(found.positions_px, scan.positions_px, atol=1e-4)
    np.testing.assert_array_equal(found.probe, without_guess(scan).probe)
    assert found.attributes[PROBE_GUESS] == FROM_PATTERNS
    assert caplog.text.count(NO_GUESS) == 2  # of the file, and of the scan to compare with


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("npz", name) for name in ("probe", "Probes", "PROBEGUESS", "probe_guess")),
        *((kind, name) for kind in ("training", "product") for name in ("probes", "Probe", "probe0")),
    ],
)
def test_a_probe_under_a_similar_name_is_refused(kind, name, scan, tmp_path):
    save, key = FORMATS[kind]
    with pytest.raises(DataError, match=f"rename '{name}' to '{key}'") as raised:
        save(tmp_path, scan, **{name: scan.probe})
    assert len(str(raised.value).splitlines()) == 4


def test_a_number_with_a_similar_name_is_no_probe(scan, tmp_path):
    assert save_npz(tmp_path, scan, probes=3.0, probe_size=np.array([1.0, 2.0])).attributes[PROBE_GUESS]


def test_a_hot_pixel_of_a_file_does_not_spoil_the_guess(scan, tmp_path, caplog):
    patterns = np.asarray(scan.patterns).astype(np.uint32)
    patterns[:, 5, 6] = np.random.default_rng(0).poisson(50_000, COUNT)
    found = save_npz(tmp_path, scan, diff3d=patterns)
    assert "1 bad detector pixel is masked" in caplog.text
    assert likeness(found.probe, without_guess(scan).probe) > 0.99


@pytest.mark.parametrize("side", [24, 40])
def test_another_detector_size(side, scan, tmp_path, caplog):
    save_npz(tmp_path, scan)
    found = load_scan(tmp_path / "a.npz", N=side)
    assert found.probe.shape == (1, side, side)
    np.testing.assert_allclose(found.positions_px, scan.positions_px * side / N)
    np.testing.assert_array_equal(found.probe, guess_of(found.patterns, found.mask, "counts"))
    assert "of the probe of" not in caplog.text


def test_a_product_without_a_probe_needs_its_patterns(scan, tmp_path):
    save_product(tmp_path, scan)
    with pytest.raises(DataError, match=r"no 'probe' in .*product") as raised:
        read_product(tmp_path / "product.h5")
    assert "diffraction.h5" in raised.value.fix


# The corner


def probe_of(name, side, diameter):
    """Return a probe (1, y, x) of the package's simulation."""
    return np.asarray(PROBES[name](side, diameter * side), dtype=np.complex64)[None]


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("side", [32, 45, 64])
def test_a_probe_in_the_corner_is_put_right_and_named(name, side, caplog):
    middle = probe_of(name, side, 0.35)
    fields = {"patterns": np.ones((2, side, side)), "positions_px": np.zeros((2, 2)), "source": "run42.npz"}
    found = pb.Scan(**fields, probe=np.fft.ifftshift(middle, axes=AXES)).probe
    np.testing.assert_array_equal(found, middle)
    assert "'run42.npz': the probe's middle stands in the corner of its array" in caplog.text
    assert f"[{side // 2}, {side // 2}]" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(pb.Scan(**fields, probe=middle).probe, middle)
    assert caplog.text == ""


def test_modes_are_moved_together():
    y, x = np.indices((N, N)) - N // 2
    main = np.exp(-(y**2 + x**2) / 18.0)
    modes = np.stack([main, 0.3 * x * main, 0.3 * y * main]).astype(np.complex64)
    assert is_split(np.fft.ifftshift(modes, axes=AXES))
    assert not is_split(modes)


@given(
    name=st.sampled_from(sorted(PROBES)),
    diameter=st.floats(0.05, 1.0),
    shift=st.tuples(st.integers(-8, 8), st.integers(-8, 8)),
    defocus=st.floats(-200, 200),
)
def test_no_probe_in_its_window_raises_an_alarm(name, diameter, shift, defocus):
    """Wide, defocused and decentred probes, some of which fill the window or leave it."""
    q = np.fft.fftfreq(N)
    blurred = np.fft.fft2(probe_of(name, N, diameter)) * np.exp(1j * defocus * (q[:, None] ** 2 + q**2))
    assert not is_split(np.roll(np.fft.ifft2(blurred), shift, AXES))


@pytest.mark.parametrize("inner", [0.0, 0.25, 0.4])
def test_rings_and_frames_raise_no_alarm(inner):
    y, x = np.indices((N, N)) - N // 2
    assert not is_split((np.maximum(abs(y), abs(x)) >= inner * N)[None].astype(np.complex64))
    assert not is_split((np.hypot(y, x) >= inner * N)[None].astype(np.complex64))


@pytest.mark.parametrize("shift", [(0, N // 2), (N // 2, 0), (N // 4, N // 4), (11, 11)])
def test_a_probe_elsewhere_stays_where_it_is(shift):
    """The search for a probe tries it in the middle: only four pieces leave no doubt."""
    assert not is_split(np.roll(probe_of("disc", N, 0.3), shift, AXES))
