"""Patterns as they are written: a bright pixel, sums and dtypes where they belong, for every kind of detector."""

import logging
from dataclasses import dataclass, field

import h5py
import numpy as np
import pytest

from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.importing import stack as stack_module
from ptycho_backend.importing.arrays import open_array
from ptycho_backend.importing.description import DetectorDescription, PatternsDescription
from ptycho_backend.importing.detector import DetectorImages, is_fast, window_around
from ptycho_backend.importing.frames import frames


@dataclass
class Source:
    """Array in memory with the interface of an array in a file; it counts what is read."""

    values: np.ndarray
    name: str = "run42.h5:/entry/data"
    rows_read: list = field(default_factory=list)

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def read(self, rows=slice(None)):
        block = self.values[rows]
        self.rows_read.append(len(block))
        return block.copy()


def beam(n=6, shape=(20, 24), centre=(10, 12), dtype=np.uint16):
    """Return patterns of a narrow beam with distinct pixel values in every pattern."""
    y, x = np.indices(shape)
    r = np.hypot(y - centre[0], x - centre[1])
    rng = np.random.default_rng(5)
    return np.stack([np.rint(2000 * np.exp(-(r**2) / 8)) + rng.integers(0, 9, shape) for _ in range(n)]).astype(dtype)


def written(values, images=None, patterns=None, **detector):
    result = frames(
        Source(values) if isinstance(values, np.ndarray) else values,
        PatternsDescription(**(patterns or {})),
        DetectorDescription(**detector),
        images,
    )
    blocks = np.concatenate(list(result.blocks()))
    assert blocks.shape == result.shape == (len(result), result.N, result.N)
    assert blocks.dtype == result.dtype
    assert not blocks[:, ~result.mask].any()
    return result, blocks


def at_middle(result, blocks):
    """Return the place of the brightest pixel of the sum, relative to [N//2, N//2]."""
    y, x = np.unravel_index(np.argmax(blocks.sum(axis=0)), blocks.shape[1:])
    return y - result.N // 2, x - result.N // 2


AXES = ["nyx", "nxy", "yxn", "xyn", "ynx", "xny"]
RASTER_AXES = ["YXyx", "yxYX", "XYyx", "YyXx", "xyXY", "YXxy"]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("block_bytes", [1, 2000, 2**26])
def test_any_order_of_the_axes(monkeypatch, axes, block_bytes):
    monkeypatch.setattr(stack_module, "BLOCK_BYTES", block_bytes)
    expected = beam()[:, :, 2:22]
    array = np.ascontiguousarray(expected.transpose(["nyx".index(letter) for letter in axes]))
    result, blocks = written(array, patterns={"axes": axes})
    np.testing.assert_array_equal(blocks, expected)
    assert result.raster is None
    assert result.n_patterns == 6


@pytest.mark.parametrize("axes", RASTER_AXES)
@pytest.mark.parametrize("block_bytes", [1, 4000, 2**26])
def test_rasters_in_any_order_of_the_axes(monkeypatch, axes, block_bytes):
    monkeypatch.setattr(stack_module, "BLOCK_BYTES", block_bytes)
    expected = beam(n=12)[:, :, 2:22]
    array = expected.reshape(4, 3, 20, 20).transpose(["YXyx".index(letter) for letter in axes])
    result, blocks = written(np.ascontiguousarray(array), patterns={"axes": axes, "frames": "1:11:3"})
    np.testing.assert_array_equal(blocks, expected[1:11:3])
    assert result.raster == (4, 3)
    assert result.n_patterns == 12
    assert list(result.rows) == [1, 4, 7, 10]


def test_axes_by_default():
    assert written(beam(n=6).reshape(2, 3, 20, 24))[0].raster == (2, 3)
    assert written(beam(n=6))[0].raster is None


@pytest.mark.parametrize(
    ("shape", "axes", "error", "words"),
    [
        ((2, 2, 20, 20), "xynn", ConfigError, "--patterns.axes"),
        ((2, 20, 20), "nyz", ConfigError, "--patterns.axes"),
        ((2, 20, 20), "YXyx", ShapeError, "--patterns.axes"),
        ((20, 20), "", ShapeError, "--patterns.dataset"),
        ((1, 2, 2, 20, 20), "", ShapeError, "--patterns.dataset"),
        ((0, 20, 20), "", DataError, "at least one pattern"),
    ],
)
def test_impossible_axes(shape, axes, error, words):
    with pytest.raises(error, match=words):
        written(np.ones(shape, dtype=np.uint16), patterns={"axes": axes})


def test_complex_patterns_are_an_error():
    with pytest.raises(DataError, match=r"--patterns\.dataset"):
        written(beam().astype(complex))


@pytest.mark.parametrize("text", ["", ":", "1:4", "::2", "-3:", ":-1", "4:100", " 2 : 3 "])
def test_slices(text):
    array = beam()[:, :, 2:22]
    parts = [int(part) if part.strip() else None for part in text.split(":")] if text else [None]
    expected = np.arange(6)[slice(*parts)]
    result, blocks = written(array, patterns={"frames": text})
    np.testing.assert_array_equal(blocks, array[expected])
    np.testing.assert_array_equal(result.rows, expected)


@pytest.mark.parametrize("text", ["3", "a:b", "1:2:3:4", "::0", "::-1", "1.5:"])
def test_bad_slices(text):
    with pytest.raises(ConfigError, match=r"--patterns\.frames"):
        written(beam(), patterns={"frames": text})


@pytest.mark.parametrize("text", ["6:", "3:3", "5:2"])
def test_slices_without_patterns(text):
    with pytest.raises(DataError, match="none in the slice"):
        written(beam(), patterns={"frames": text})


def test_the_file_is_read_twice_and_never_whole(monkeypatch):
    monkeypatch.setattr(stack_module, "BLOCK_BYTES", 2 * 20 * 24 * 2)
    source = Source(beam(n=7))
    written(source)
    assert source.rows_read == [2, 2, 2, 1] * 2


def test_patterns_of_an_hdf5_file(tmp_path):
    """The array of a file, in chunks and big-endian, gives what the array in memory gives."""
    array = beam(n=7)
    with h5py.File(tmp_path / "run42.h5", "w") as file:
        file.create_dataset("entry/data", data=array.astype(">u4"), chunks=(2, 20, 24), compression="gzip")
    result, blocks = written(open_array(f"{tmp_path / 'run42.h5'}:/entry/data"), patterns={"frames": "1:6:2"})
    np.testing.assert_array_equal(blocks, array[1:6:2, :, 2:22])
    assert result.dtype == np.uint32
    assert result.dtype.isnative


def test_few_of_many_patterns_are_read_alone(monkeypatch):
    monkeypatch.setattr(stack_module, "BLOCK_BYTES", 2**20)
    source = Source(beam(n=40))
    result, _ = written(source, patterns={"frames": "::13"})
    assert source.rows_read == [1] * 8
    assert len(result) == 4


def test_dark_flat_and_gain():
    rng = np.random.default_rng(1)
    counts = beam()[:, :, 2:22].astype(np.float64)
    dark, flat = rng.integers(5, 50, (20, 20)), rng.choice([0.5, 1.0, 2.0], (20, 20))
    flat[4, 7] = 0
    dark_image = dark.astype(float)
    dark_image[5, 5] = np.nan
    raw = np.rint(counts * 4 * np.where(flat > 0, flat, 1)) + dark
    raw[2, 1, 1] = dark[1, 1] - 3  # below the dark frame
    counts[2, 1, 1] = 0
    result, blocks = written(raw.astype(np.uint16), DetectorImages(dark=dark_image, flat=flat), gain=4.0)
    assert result.dtype == np.float32
    assert set(map(tuple, np.argwhere(~result.mask))) == {(4, 7), (5, 5)}
    np.testing.assert_allclose(blocks[:, result.mask], counts[:, result.mask], rtol=1e-6)
    np.testing.assert_allclose(result.mean_pattern[result.mask], counts.mean(axis=0)[result.mask], rtol=1e-6)


@pytest.mark.parametrize("convention", ["bad", "good"])
def test_mask_and_its_convention(convention):
    bad = np.zeros((20, 20), dtype=np.uint8)
    bad[3, 4] = 7
    image = bad if convention == "bad" else bad == 0
    result, _ = written(beam()[:, :, 2:22], DetectorImages(mask=image[None]), mask_convention=convention)
    assert list(map(tuple, np.argwhere(~result.mask))) == [(3, 4)]


@pytest.mark.parametrize("name", ["dark", "flat", "mask"])
def test_images_have_the_sides_of_the_detector(name):
    with pytest.raises(ShapeError, match=rf"--detector\.{name}"):
        written(beam(), DetectorImages(**{name: np.ones((20, 20))}))


def test_a_mask_of_everything_is_an_error():
    with pytest.raises(DataError, match=r"--detector\.mask_convention"):
        written(beam(), DetectorImages(mask=np.ones((20, 24))))


def test_saturated_pixels_are_masked_with_a_warning(caplog):
    array = beam()[:, :, 2:22]
    array[3, 2, 2] = 60000
    with caplog.at_level(logging.WARNING):
        result, _ = written(array, saturation=60000.0)
    assert list(map(tuple, np.argwhere(~result.mask))) == [(2, 2)]
    assert "1 pixels reach the saturation" in caplog.text
    assert written(array, saturation=60000.0, patterns={"frames": ":3"})[0].mask.all()


@pytest.mark.parametrize(
    ("dtype", "marker"),
    [(np.uint16, 65535), (np.uint32, 2**32 - 1), (np.int32, -1), (np.float32, np.nan), (np.float32, -1.0)],
)
def test_markers_in_every_pattern_are_masked(dtype, marker):
    array = beam(dtype=dtype)[:, :, 2:22]
    array[:, 7, 9] = marker
    result, blocks = written(array)
    assert list(map(tuple, np.argwhere(~result.mask))) == [(7, 9)]
    expected = np.where(result.mask, array, 0)
    np.testing.assert_array_equal(blocks, expected)


@pytest.mark.parametrize("marker", [np.nan, np.inf])
def test_a_pixel_without_counts_in_one_valid_pattern_is_masked(marker):
    array = beam(dtype=np.float32)[:, :, 2:22]
    array[4, 7, 9] = marker
    assert list(map(tuple, np.argwhere(~written(array)[0].mask))) == [(7, 9)]


@pytest.mark.parametrize("dtype", [np.float32, np.uint32])
def test_a_broken_pattern_does_not_mask_the_detector(dtype, caplog):
    array = beam(n=8, dtype=dtype)[:, :, 2:22]
    array[2] = np.nan if dtype == np.float32 else 2**32 - 1
    with caplog.at_level(logging.WARNING):
        result, blocks = written(array, patterns={"frames": "1:"})
    assert result.mask.all()
    assert not blocks[1].any()
    assert "patterns 2 hold no counts" in caplog.text


def test_negative_values_are_written_as_zero_with_a_warning(caplog):
    array = beam(dtype=np.float32)[:, :, 2:22]
    array[1, 3, 3] = -2.0
    with caplog.at_level(logging.WARNING):
        result, blocks = written(array)
    assert result.mask.all()
    np.testing.assert_array_equal(blocks, np.maximum(array, 0))
    assert "below 0" in caplog.text


@pytest.mark.parametrize("fftshift", ["auto", "on"])
def test_corner_patterns_are_moved_to_the_middle(fftshift):
    array = np.fft.ifftshift(beam(shape=(20, 20), centre=(10, 10)), axes=(1, 2))
    result, blocks = written(array, fftshift=fftshift)
    assert at_middle(result, blocks) == (0, 0)
    np.testing.assert_array_equal(blocks, np.fft.fftshift(array, axes=(1, 2)))
    assert any("corner" in note for note in result.notes)


def test_fftshift_off_leaves_the_corner():
    array = np.fft.ifftshift(beam(shape=(20, 20), centre=(10, 10)), axes=(1, 2))
    _, blocks = written(array, fftshift="off", centre_y_px=10.0, centre_x_px=10.0)
    np.testing.assert_array_equal(blocks, array)


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("flip_y", [False, True])
@pytest.mark.parametrize("flip_x", [False, True])
def test_transpose_comes_before_the_flips(transpose, flip_y, flip_x):
    array = beam(shape=(21, 21), centre=(10, 10))
    mask = np.zeros((21, 21), dtype=bool)
    mask[2, 5] = True
    result, blocks = written(
        array,
        DetectorImages(mask=mask),
        transpose=transpose,
        flip_y=flip_y,
        flip_x=flip_x,
        centre_y_px=10,
        centre_x_px=10,
    )
    y, x = (5, 2) if transpose else (2, 5)
    y, x = 20 - y if flip_y else y, 20 - x if flip_x else x
    assert list(map(tuple, np.argwhere(~result.mask))) == [(y, x)]
    source = array[3].T if transpose else array[3]
    y, x = 20 - 1 if flip_y else 1, 20 - 6 if flip_x else 6
    assert blocks[3, y, x] == source[1, 6]


@pytest.mark.parametrize("shape", [(32, 32), (33, 33), (32, 41), (45, 34)])
@pytest.mark.parametrize("bin_px", [1, 2, 3])
@pytest.mark.parametrize("offset", [(0, 0), (1, -2), (-3, 2)])
def test_the_zero_frequency_lands_in_the_middle(shape, bin_px, offset):
    """One bright pixel, with the centre given: its whole light is at [N//2, N//2], and the window touches an edge."""
    centre = (shape[0] // 2 + offset[0], shape[1] // 2 + offset[1])
    array = np.zeros((2, *shape), dtype=np.uint16)
    array[:, centre[0], centre[1]] = 7
    result, blocks = written(array, fftshift="off", bin=bin_px, centre_y_px=centre[0], centre_x_px=centre[1])
    middle = result.N // 2
    assert (blocks[:, middle, middle] == 7).all()
    assert blocks.sum() == 14
    assert result.mask.all()
    if shape == (result.size_px, result.size_px):
        return
    # No larger square: with the next side that has fast transforms, the window would leave the detector.
    assert is_fast(result.N)
    larger = next(N for N in range(result.N + 1, 60) if is_fast(N))
    starts = [c - bin_px * (larger // 2) - (bin_px - 1) // 2 for c in centre]
    assert any(first < 0 or first + larger * bin_px > side for first, side in zip(starts, shape, strict=True))


def test_sides_with_fast_transforms():
    assert [N for N in range(30, 66) if is_fast(N)] == [30, 32, 36, 40, 48, 50, 54, 60, 64]


def test_a_square_detector_stays_whole_and_another_one_is_cut_to_a_fast_side():
    assert window_around((16, 17), (33, 33), DetectorDescription()).N in (30, 32)
    assert window_around((16, 16), (33, 33), DetectorDescription()).N == 33
    assert window_around((243, 309), (487, 619), DetectorDescription()).N == 486
    assert window_around((256, 257), (512, 514), DetectorDescription()).N == 512


@pytest.mark.parametrize("bin_px", [1, 2])
def test_a_window_beyond_the_detector_is_masked_there(bin_px):
    array = beam(shape=(20, 24), centre=(9, 12))
    result, blocks = written(array, size_px=32, bin=bin_px, centre_y_px=9, centre_x_px=12)
    full = np.zeros((6, 32, 32), dtype=np.uint16)
    full[:, 16 - 9 : 16 - 9 + 20, 16 - 12 : 16 - 12 + 24] = array
    inside = np.zeros((32, 32), dtype=bool)
    inside[7:27, 4:28] = True
    N = 32 // bin_px
    good = inside.reshape(N, bin_px, N, bin_px).all(axis=(1, 3))
    np.testing.assert_array_equal(result.mask, good)
    sums = full.reshape(6, N, bin_px, N, bin_px).sum(axis=(2, 4))
    np.testing.assert_array_equal(blocks, np.where(good, sums, 0))
    assert at_middle(result, blocks) == (0, 0)


def test_one_bad_pixel_makes_a_bad_bin():
    mask = np.zeros((20, 20), dtype=bool)
    mask[5, 8] = True
    result, _ = written(beam(shape=(20, 20), centre=(10, 10)), DetectorImages(mask=mask), bin=2)
    assert list(map(tuple, np.argwhere(~result.mask))) == [(2, 4)]


def test_the_centre_is_found():
    array = beam(shape=(40, 48), centre=(17, 28))
    result, blocks = written(array)
    assert at_middle(result, blocks) == (0, 0)
    np.testing.assert_allclose(result.centre_px, (17, 28), atol=0.3)
    y, x = 17 - result.N // 2, 28 - result.N // 2
    np.testing.assert_array_equal(blocks, array[:, y : y + result.N, x : x + result.N])
    assert any("is cut from" in note for note in result.notes)


def test_a_centre_near_the_middle_keeps_the_whole_detector():
    array = beam(shape=(32, 32), centre=(16, 15))
    result, blocks = written(array)
    assert result.centre_px == (16, 16)
    np.testing.assert_array_equal(blocks, array)


@pytest.mark.parametrize(("centre", "first"), [(20.0, 20), (19.9, 20), (20.1, 20), (19.5, 19), (20.5, 20)])
def test_the_bin_of_the_zero_frequency_lies_around_the_centre(centre, first):
    """A found centre has noise: bins do not jump between 19.9 and 20.1."""
    window = window_around((centre, centre), (40, 40), DetectorDescription(bin=2, size_px=16))
    assert window.start == (first - 8, first - 8)


def test_one_given_coordinate_stays():
    result, _ = written(beam(shape=(40, 48), centre=(17, 28)), centre_y_px=20.0)
    assert result.centre_px[0] == 20.0
    assert result.centre_px[1] == pytest.approx(28, abs=0.3)


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        ({"centre_y_px": 20.0, "centre_x_px": 3.0}, "--detector.centre_y_px"),
        ({"size_px": 15, "bin": 2}, "--detector.size_px 14"),
        ({"bin": 4}, "--detector.size_px"),
        ({"size_px": 8, "bin": 2}, "--detector.size_px"),
    ],
)
def test_impossible_windows(detector, words):
    with pytest.raises(ConfigError, match=words):
        written(beam(), **detector)


@pytest.mark.parametrize(
    ("dtype", "value", "bin_px", "expected"),
    [
        (np.uint8, 200, 1, np.uint8),
        (np.uint8, 20, 2, np.uint8),
        (np.uint8, 200, 2, np.uint16),
        (np.int8, 100, 2, np.int16),
        (">u2", 60000, 2, np.uint32),
        (np.uint32, 60000, 2, np.uint32),
        (np.float64, 60000, 2, np.float32),
        (np.float32, 60000, 1, np.float32),
    ],
)
def test_integers_stay_integers_that_hold_the_sums(dtype, value, bin_px, expected):
    array = np.full((2, 20, 20), value, dtype=dtype)
    result, blocks = written(array, bin=bin_px, fftshift="off", centre_y_px=10, centre_x_px=10)
    assert blocks.dtype == np.dtype(expected)
    assert (blocks == value * bin_px**2).all()
    assert result.measurement == "counts"


def test_fractions_need_a_unit():
    array = beam(dtype=np.float32)[:, :, 2:22] + np.float32(0.5)
    with pytest.raises(DataError, match=r"--patterns\.unit counts.*--patterns\.unit amplitude"):
        written(array)
    result, blocks = written(array, patterns={"unit": "counts"})
    assert result.measurement == "counts"
    np.testing.assert_array_equal(blocks, array)


def test_fractions_on_masked_pixels_do_not_count():
    array = beam(dtype=np.float32)[:, :, 2:22]
    array[2, 3, 4] = 0.5
    mask = np.zeros((20, 20), dtype=bool)
    mask[3, 4] = True
    assert written(array, DetectorImages(mask=mask))[0].measurement == "counts"
    with pytest.raises(DataError, match=r"detector pixel \(3, 4\)"):
        written(array)


def test_amplitudes_are_binned_as_intensities():
    counts = beam(shape=(20, 20), centre=(10, 10))
    amplitude = np.sqrt(counts.astype(np.float64))
    result, blocks = written(amplitude, patterns={"unit": "amplitude"}, bin=2)
    assert result.measurement == "amplitude"
    sums = counts.astype(np.int64).reshape(6, 10, 2, 10, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(blocks.astype(np.float64) ** 2, sums, rtol=1e-5)
    np.testing.assert_allclose(result.mean_pattern, sums.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "detector", "error"), [(np.uint16, {}, DataError), (np.float32, {"gain": 2.0}, ConfigError)]
)
def test_contradictions_of_amplitudes(dtype, detector, error):
    with pytest.raises(error, match=r"--patterns\.unit counts"):
        written(beam(dtype=dtype), patterns={"unit": "amplitude"}, **detector)
