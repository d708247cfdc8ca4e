"""Incremental image: unfinished images during a reconstruction, and the last one on a signal (data 6.4)."""

import os
import signal
import time

import numpy as np
import pytest

from ptycho_backend import api
from ptycho_backend.commands import incremental_image as incremental
from ptycho_backend.data.output import OutputError
from ptycho_backend.data.product import read_product
from ptycho_backend.data.readers import load_scan
from ptycho_backend.runtime import progress

RECONSTRUCTION = "reconstruction.h5"
PICTURES = {"object.png", "probe.png", "comparison.png", "assessment.png"}
FINISHED = {RECONSTRUCTION, "evaluation.json", "assessment.json", "report.html", *PICTURES}


@pytest.fixture
def reconstruct(ptychopinn, scan_file, trained, tmp_path):
    """Return a function that reconstructs the scan into a folder."""

    def run(name, *options, iterations=3):
        folder = tmp_path / name
        settings = ("--inference.batch_size=16", f"--inference.iterations={iterations}")
        return folder, ptychopinn(
            "reconstruct", scan_file, "--model", trained[0], "--output", folder, *settings, *options
        )

    return run


@pytest.fixture
def when(monkeypatch):
    """Return a function that runs an action at one step of a stage."""

    plain = progress.EventLog

    def set_action(stage, done, act):
        class Acting(plain):
            def __call__(self, event):
                super().__call__(event)
                if (event.stage, event.done) == (stage, done):
                    act()

        monkeypatch.setattr(progress, "EventLog", Acting)

    return set_action


@pytest.fixture
def image_of(scan_file, trained):
    """Return a function that computes the image without the command."""

    def make(**fields):
        settings = {"batch_size": 16, "iterations": 0, **fields}
        return api.reconstruct(load_scan(scan_file), api.load_model(trained[0]), **settings)

    return make


def names(folder):
    return {item.name for item in folder.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_the_unfinished_image(reconstruct, image_of, when, ptychopinn, number):
    when("reconstruction", 32, lambda: signal.raise_signal(number))
    before = signal.getsignal(number)
    folder, outcome = reconstruct("stopped")
    assert outcome.status == 128 + number
    assert outcome.err.splitlines()[-1] == (
        f"Interrupted: saved in '{folder}': {RECONSTRUCTION}; the image is incomplete (reconstruction: 32 of 64)"
    )
    assert "Traceback" not in outcome.err
    assert names(folder) == {RECONSTRUCTION}
    assert signal.getsignal(number) == before
    part, whole = read_product(folder / RECONSTRUCTION), image_of()
    assert part.attributes["incomplete"] == "reconstruction: 32 of 64"
    assert part.attributes["inference"]["batch_size"] == 16
    assert part.obj.shape == whole.obj.shape
    assert part.obj_origin_px == pytest.approx(whole.origin_px)
    assert 0.3 < np.count_nonzero(part.obj) / np.count_nonzero(whole.obj) < 0.9
    assert "is incomplete: reconstruction: 32 of 64" in ptychopinn("info", folder / RECONSTRUCTION).err


def test_signal_inside_an_iteration_saves_the_previous_one(reconstruct, image_of, monkeypatch):
    expected = image_of(iterations=1)
    monkeypatch.setattr("ptycho_backend.events.REPORT_EVERY_S", 0.0)
    pressed = []

    class Pressing(progress.EventLog):
        def __call__(self, event):
            if event.stage == "iterations" and 1 < event.done < 2 and not pressed:
                pressed.append(event.done)
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress, "EventLog", Pressing)
    monkeypatch.setattr("ptycho_backend.engines.numpy.solver.CHUNK_PIXELS", 16 * 32**2)
    folder, outcome = reconstruct("stopped")
    assert outcome.status == 130
    assert pressed
    found = read_product(folder / RECONSTRUCTION)
    assert found.attributes["incomplete"] == "iterations: 1 of 3"
    np.testing.assert_array_equal(found.obj, expected.obj)


def test_signal_after_the_image_saves_it_complete(reconstruct, image_of, when):
    def press_in_the_comparison():
        images.append(1)
        if len(images) == 2:
            signal.raise_signal(signal.SIGINT)

    images = []
    when("iterations", 1, press_in_the_comparison)
    folder, outcome = reconstruct("stopped", "--compare")
    assert outcome.status == 130
    assert outcome.err.splitlines()[-1].endswith(f"{RECONSTRUCTION}; the image is complete")
    found = read_product(folder / RECONSTRUCTION)
    assert "incomplete" not in found.attributes
    np.testing.assert_array_equal(found.obj, image_of(iterations=3).obj)


def test_second_signal_ends_the_command_at_once(reconstruct, when):
    def press_twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    when("reconstruction", 32, press_twice)
    folder, outcome = reconstruct("stopped")
    assert outcome.status == 130
    assert outcome.err.splitlines()[-1] == "Interrupted: no file was complete"
    assert not folder.exists()


def test_unfinished_images_are_written_on_the_way(reconstruct, monkeypatch, tmp_path):
    folder = tmp_path / "image"
    monkeypatch.setattr(incremental, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(incremental, "WRITING_SHARE", float("inf"))
    images = []

    class Reading(progress.EventLog):
        def __call__(self, event):
            if event.image:
                product = read_product(folder / RECONSTRUCTION)
                images.append((product.attributes.get("incomplete"), np.count_nonzero(product.obj)))

    monkeypatch.setattr(progress, "EventLog", Reading)
    _, outcome = reconstruct("image")
    assert outcome.status == 0, outcome.err
    progress_texts = [text for text, _ in images]
    assert progress_texts == [
        *(f"reconstruction: {done} of 64" for done in (16, 32, 48, 64)),
        *(f"iterations: {done} of 3" for done in (1, 2, 3)),
    ]
    sizes = [size for _, size in images]
    assert sizes[0] < sizes[1] < sizes[2] < sizes[3] == sizes[-1]
    assert "incomplete" not in read_product(folder / RECONSTRUCTION).attributes
    assert names(folder) == FINISHED


def test_earlier_results_stay_until_the_first_image(reconstruct, when, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in FINISHED:
        (folder / name).write_text("earlier", encoding="utf-8")
    when("reconstruction", 16, lambda: (signal.raise_signal(signal.SIGINT), signal.raise_signal(signal.SIGINT)))
    assert reconstruct("run", "--overwrite")[1].status == 130
    kept = {item.name: item.read_text(encoding="utf-8") for item in folder.iterdir()}
    assert kept == dict.fromkeys(FINISHED, "earlier")
    when("reconstruction", 16, lambda: signal.raise_signal(signal.SIGINT))
    assert reconstruct("run", "--overwrite")[1].status == 130
    assert names(folder) == {RECONSTRUCTION}  # without pictures of the earlier image


def test_full_disk_is_a_warning(reconstruct, monkeypatch):
    real, calls = incremental.write_image, []

    def fail_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OutputError("rule", "expected", "no space left", "fix")
        return real(*arguments)

    monkeypatch.setattr(incremental, "write_image", fail_first)
    monkeypatch.setattr(incremental, "WRITE_EVERY_S", 0.0)
    monkeypatch.setattr(incremental, "WRITING_SHARE", float("inf"))
    folder, outcome = reconstruct("run")
    assert outcome.status == 0
    assert "warning: the unfinished image is not written: no space left" in outcome.err
    assert names(folder) == FINISHED
    assert len(calls) > 1


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_stopped_process_leaves_a_valid_image(scan_file, trained, tmp_path, started, wait_for):
    folder = tmp_path / "image"
    options = ("--output", folder, "--inference.iterations=1000000")
    process = started("reconstruct", scan_file, "--model", trained[0], *options)
    wait_for(process, "stitching: 64 of 64")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    message = f"Interrupted: saved in '{folder}': {RECONSTRUCTION}; the image is incomplete (iterations: "
    assert err.splitlines()[-1].startswith(message)
    assert out == ""
    assert names(folder) == {RECONSTRUCTION}
    product = read_product(folder / RECONSTRUCTION)
    assert product.attributes["incomplete"].endswith("of 1000000")
    assert np.isfinite(product.obj).all()
