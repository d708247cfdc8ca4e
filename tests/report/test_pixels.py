"""Pictures as PNG: colours, means of blocks, and size."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ptycho_backend.report.frames import plain
from ptycho_backend.report.pixels import MAX_SIDE_PX, block_mean, hex_palette, map_pixels, palette_of, wave_pixels


def decoded(pixels):
    """Return the colours (y, x, 3) of a picture."""
    head, _, content = pixels.address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_a_map_has_the_colours_of_its_scale():
    values = np.array([[0.0, 1.0], [0.5, np.nan], [-3.0, 9.0]])
    colours, scale = decoded(map_pixels(values, "viridis", (0.0, 1.0))), palette_of("viridis")
    np.testing.assert_array_equal(colours[:, 0], scale[[0, 127, 0]])
    np.testing.assert_array_equal(colours[[0, 2], 1], scale[[254, 254]])
    np.testing.assert_array_equal(colours[1, 1], (0xD9, 0xD9, 0xD9))
    assert hex_palette("gray")[0] == "#000000"
    assert hex_palette("gray")[-1] == "#ffffff"


def test_a_wave_has_brightness_and_hue():
    colours = decoded(wave_pixels(np.array([[1.0, 0.0], [-1.0, 0.5]])))
    np.testing.assert_array_equal(colours[:, :, 0], [[255, 0], [0, 128]])
    np.testing.assert_array_equal(colours[1, 0], (0, 255, 255))


@pytest.mark.parametrize("shape", [(6, 4), (7, 5), (1, 9)])
def test_block_mean(shape):
    values = np.random.default_rng(0).normal(size=shape)
    values[0, 0] = np.nan
    reduced = block_mean(values, 2)
    expected = [
        [np.nanmean(values[y : y + 2, x : x + 2]) for x in range(0, shape[1], 2)] for y in range(0, shape[0], 2)
    ]
    np.testing.assert_allclose(reduced, expected)
    assert np.isnan(block_mean(np.full((4, 4), np.nan), 2)).all()


def test_large_maps_are_reduced_by_a_whole_factor():
    pixels = map_pixels(np.zeros((3, 2 * MAX_SIDE_PX + 1)), "gray", (0, 1))
    assert pixels.factor == 3
    assert decoded(pixels).shape == (1, 683, 3)
    noise = np.random.default_rng(0).uniform(size=(300, 300))
    pixels = map_pixels(noise, "gray", (0, 1), max_bytes=20_000)
    assert pixels.factor > 1
    assert len(base64.b64decode(pixels.address.partition(",")[2])) <= 20_000


def test_labels_are_short_and_hold_no_formula():
    assert plain("$$x$$ \\[y\\] \\(z") == "$ $x$ $ \\ [y\\] \\ (z"
    assert plain("a" * 30 + "b" * 30) == "a" * 16 + "…" + "b" * 15
