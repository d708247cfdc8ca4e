"""Run folders: one command at a time, and readers see the old run or the new one (data 6.5, 6.6)."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ptycho_backend.data.run_claim import LOCK, claimed, control_folder, owner_of
from ptycho_backend.data.run_folder import (
    Contents,
    after_swap,
    folder_in_progress,
    resumable_folder,
    run_folder,
    updated_folder,
)
from ptycho_backend.errors import OutputError
from ptycho_backend.runtime.process_owner import ProcessOwner

POSIX = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
CONTENTS = Contents(("model", "metrics", "checkpoints"), ("model",), "checkpoints/last")


def write(folder, **texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def texts(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path):
    """Return an old run with a file of the user."""
    folder = tmp_path / "run"
    write(folder, model="old", metrics="old", notes="mine")
    return folder


def stopped(run, error, **written):
    """Write files of a run that replaces another one, and end it with an error; return the folder of the files."""

    def work():
        with run_folder(run, CONTENTS, overwrite=True) as folder:
            folders.append(folder)
            write(folder, **written)
            raise error

    folders = []
    with pytest.raises(error):
        work()
    return folders[0]


def lock_of(folder, **changes):
    control = control_folder(folder)
    control.mkdir(exist_ok=True)
    (control / LOCK).write_text(json.dumps({**ProcessOwner.current().to_dict(), **changes}))
    return control / LOCK


class TestClaim:
    def test_second_claim_names_host_process_and_remedy(self, run):
        with claimed(run), pytest.raises(OutputError) as raised, claimed(run):
            pytest.fail("two owners")
        assert f"process {os.getpid()} (this one)" in raised.value.received
        assert ProcessOwner.current().host in raised.value.received
        assert f"kill {os.getpid()}" in raised.value.fix

    def test_nothing_stays_of_a_claim(self, run, tmp_path):
        with claimed(run):
            assert owner_of(run) == ProcessOwner.current()
        assert [item.name for item in tmp_path.iterdir()] == ["run"]
        assert owner_of(run) is None

    @POSIX
    @pytest.mark.parametrize("changes", [{"pid": 2**31 - 1}, {"started": "earlier"}])
    def test_the_claim_of_an_ended_process_is_taken_over(self, run, changes):
        lock_of(run, **changes)
        with claimed(run):
            assert owner_of(run) == ProcessOwner.current()

    def test_the_claim_of_another_host_stays_and_the_error_says_how_to_remove_it(self, run):
        lock = lock_of(run, host="elsewhere", pid=77)
        with pytest.raises(OutputError, match=r"process 77 on 'elsewhere'") as raised, claimed(run):
            pytest.fail("it may still run")
        assert raised.value.fix.endswith(f"rm '{lock}'")
        assert lock.is_file()

    @pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": 1}', "[" * 9000])
    def test_an_unreadable_lock_is_an_error_that_says_how_to_remove_it(self, run, text, monkeypatch):
        monkeypatch.setattr("ptycho_backend.data.run_claim.WAIT_S", 0.0)
        lock = lock_of(run)
        lock.write_text(text)
        with pytest.raises(OutputError, match="unreadable") as raised, claimed(run):
            pytest.fail("it may be in use")
        assert f"rm '{lock}'" in raised.value.fix

    def test_a_refused_command_removes_nothing_of_the_first(self, tmp_path):
        with run_folder(tmp_path / "new", CONTENTS) as first:
            with pytest.raises(OutputError, match="one command at a time"), run_folder(tmp_path / "new", CONTENTS):
                pytest.fail("two owners")
            assert first.is_dir()
            write(first, model="first")
        assert texts(tmp_path / "new") == {"model": "first"}

    def test_a_link_to_a_folder_has_the_claim_of_the_folder(self, run, tmp_path):
        (tmp_path / "latest").symlink_to(run)
        with claimed(run), pytest.raises(OutputError, match="one command at a time"), claimed(tmp_path / "latest"):
            pytest.fail("two owners")


class TestInPlace:
    def test_a_new_run_is_written_in_place(self, tmp_path):
        with run_folder(tmp_path / "a" / "run", CONTENTS) as folder:
            assert folder == tmp_path / "a" / "run"
            write(folder, model="new")
        assert texts(folder) == {"model": "new"}
        assert [item.name for item in (tmp_path / "a").iterdir()] == ["run"]

    def test_a_failed_run_without_files_leaves_no_folder(self, tmp_path):
        with (
            contextlib.suppress(ZeroDivisionError),
            run_folder(tmp_path / "a" / "run", CONTENTS) as folder,
        ):
            (folder / "checkpoints").mkdir()
            raise ZeroDivisionError
        (tmp_path / "a").rmdir()
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_with_files_needs_overwrite(self, run):
        with pytest.raises(OutputError, match="which holds 3 item"), run_folder(run, CONTENTS):
            pytest.fail("it holds a run")

    def test_an_update_keeps_all_files(self, run):
        with updated_folder(run, overwrite=True) as folder:
            write(folder, evaluation="new")
        assert texts(run) == {"model": "old", "metrics": "old", "notes": "mine", "evaluation": "new"}


class TestReplacement:
    def test_readers_see_the_old_run_until_the_end(self, run, tmp_path):
        old = texts(run)
        with run_folder(run, CONTENTS, overwrite=True) as folder:
            write(folder, metrics="new")
            assert texts(run) == old
            assert folder.name == run.name
            assert folder_in_progress(run) == folder
            write(folder, model="new")
        assert texts(run) == {"model": "new", "metrics": "new", "notes": "mine"}
        assert [item.name for item in tmp_path.iterdir()] == ["run"]
        assert folder_in_progress(run) == run

    def test_files_that_the_new_run_lacks_are_not_mixed_with_it(self, run):
        with run_folder(run, CONTENTS, overwrite=True) as folder:
            write(folder, model="new")
        assert texts(run) == {"model": "new", "notes": "mine"}

    def test_folders_links_and_new_notes_of_the_user_stay(self, run, tmp_path):
        write(run, **{"data/scan": "mine"})
        (run / "link").symlink_to("nowhere")
        with run_folder(run, CONTENTS, overwrite=True) as folder:
            write(folder, model="new")
            write(run, later="mine")
        assert texts(run) == {"model": "new", "notes": "mine", "data/scan": "mine", "later": "mine"}
        assert os.readlink(run / "link") == "nowhere"

    def test_a_failure_keeps_the_old_run(self, run, tmp_path):
        old = texts(run)
        stopped(run, ZeroDivisionError, metrics="new")
        assert texts(run) == old
        assert [item.name for item in tmp_path.iterdir()] == ["run"]

    def test_a_failure_after_the_result_gives_the_new_run(self, run):
        stopped(run, KeyboardInterrupt, model="new", metrics="new")
        assert texts(run) == {"model": "new", "metrics": "new", "notes": "mine"}

    def test_a_stopped_run_is_resumed_and_swapped_in(self, run):
        old = texts(run)
        folder = stopped(run, KeyboardInterrupt, metrics="new", **{"checkpoints/last": "half"})
        assert texts(run) == old
        assert resumable_folder(run, CONTENTS.checkpoint) == folder
        with run_folder(run, CONTENTS, resume=True) as again:
            assert (again / "checkpoints" / "last").read_text() == "half"
            write(again, model="new")
        assert texts(run) == {"model": "new", "metrics": "new", "notes": "mine", "checkpoints/last": "half"}

    def test_a_complete_run_that_resumes_is_the_old_one_until_the_end(self, run):
        write(run, **{"checkpoints/last": "old"})
        old = texts(run)
        with run_folder(run, CONTENTS, resume=True) as folder:
            assert texts(folder) == {"checkpoints/last": "old"}
            (folder / "checkpoints" / "last").unlink()
            write(folder, model="more", metrics="more", **{"checkpoints/last": "more"})
            assert texts(run) == old
        assert texts(run) == {"model": "more", "metrics": "more", "notes": "mine", "checkpoints/last": "more"}

    def test_a_refused_resume_leaves_nothing(self, run, tmp_path):
        write(run, **{"checkpoints/last": "old"})
        old = texts(run)
        with pytest.raises(ZeroDivisionError), run_folder(run, CONTENTS, resume=True):
            raise ZeroDivisionError
        assert texts(run) == old
        assert [item.name for item in tmp_path.iterdir()] == ["run"]

    def test_a_refused_command_keeps_a_stopped_run(self, run):
        first = stopped(run, KeyboardInterrupt, **{"checkpoints/last": "half"})
        assert stopped(run, ZeroDivisionError, metrics="newer") == first
        assert texts(first) == {"checkpoints/last": "half"}

    def test_a_command_of_another_kind_keeps_a_stopped_training(self, run):
        training = stopped(run, KeyboardInterrupt, **{"checkpoints/last": "half"})
        with (
            pytest.raises(OutputError, match="stopped training"),
            run_folder(run, Contents(("image",), ("image",)), overwrite=True),
        ):
            pytest.fail("it would remove the training")
        assert texts(training) == {"checkpoints/last": "half"}

    def test_the_current_folder_is_not_replaced(self, run, monkeypatch):
        monkeypatch.chdir(run)
        with (
            pytest.raises(OutputError, match="cannot be renamed from here"),
            run_folder(".", CONTENTS, overwrite=True),
        ):
            pytest.fail("the shell would stay in a removed folder")
        assert texts(run) == {"model": "old", "metrics": "old", "notes": "mine"}


def killed_in_the_swap(run):
    """Leave the files of a process that was killed between the two renamings of a swap."""
    control = control_folder(run)
    write(control / "new" / "run", model="new", notes="mine")
    (control / "old").mkdir()
    run.rename(control / "old" / "run")


class TestRepair:
    @POSIX
    def test_the_next_reader_finishes_a_swap(self, run, tmp_path):
        killed_in_the_swap(run)
        lock_of(run, pid=2**31 - 1)
        assert after_swap(run / "model").read_text() == "new"
        assert texts(run) == {"model": "new", "notes": "mine"}
        assert [item.name for item in tmp_path.iterdir()] == ["run"]

    def test_the_next_run_finishes_a_swap(self, run, tmp_path):
        killed_in_the_swap(run)
        with pytest.raises(OutputError, match="which holds 2 item"), run_folder(run, CONTENTS):
            pytest.fail("it holds a run")
        assert texts(run) == {"model": "new", "notes": "mine"}

    def test_a_reader_waits_for_a_swap_that_goes_on(self, run, monkeypatch):
        killed_in_the_swap(run)
        lock_of(run)  # of this process
        monkeypatch.setattr("ptycho_backend.data.run_folder.SWAP_S", 0.05)
        found = after_swap(run / "model")
        assert found.read_text() == "new"
        assert not run.exists()

    def test_the_rest_of_an_old_run_is_removed(self, run, tmp_path):
        write(control_folder(run) / "old" / "run", model="older")
        with updated_folder(run, overwrite=True):
            assert texts(run)["model"] == "old"
        assert [item.name for item in tmp_path.iterdir()] == ["run"]

    def test_other_paths_are_returned_unchanged(self, run, tmp_path):
        for path in (run, run / "model", run / "no" / "file", Path("a\0b"), tmp_path / ("n" * 300)):
            assert after_swap(path) == path


SWAPS = """
import sys
from pathlib import Path
from ptycho_backend.data.run_folder import Contents, run_folder
for number in range(10**6):
    with run_folder(sys.argv[1], Contents(("a", "b"), ("a",)), overwrite=True) as folder:
        for name in "ab":
            (folder / name).write_text(str(number))
"""


@POSIX
@pytest.mark.parametrize("attempts", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_swap_leaves_one_whole_run(tmp_path, attempts):
    run = tmp_path / "run"
    for attempt in range(attempts):
        process = subprocess.Popen([sys.executable, "-c", SWAPS, str(run)])
        while not run.exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.3 + 0.00037 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = [after_swap(run / name).read_text() for name in "ab"]
        assert seen[0] == seen[1]
    with updated_folder(run, overwrite=True):
        pass
    assert {path.name for path in tmp_path.iterdir()} <= {"run", ".run.ptychopinn"}
    assert not (control_folder(run) / "old").exists()


def numbers_in(run):
    """Return the content of both files of one folder; {} if it is replaced while it is read."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(after_swap(run), os.O_RDONLY)
        try:
            for name in "ab":
                with open(os.open(name, os.O_RDONLY, dir_fd=descriptor), encoding="utf-8") as stream:
                    found[name] = stream.read()
        finally:
            os.close(descriptor)
    return found


@POSIX
@pytest.mark.parametrize("seconds", [1.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_readers_see_no_mixed_run(tmp_path, seconds):
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", SWAPS, str(run)])
    try:
        while not run.exists():
            time.sleep(0.01)
        until, seen = time.monotonic() + seconds, set()
        while time.monotonic() < until:
            found = numbers_in(run)
            if len(found) == 2:
                assert found["a"] == found["b"]
                seen.add(found["a"])
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert len(seen) > 5


@POSIX
def test_one_of_two_processes_is_refused(tmp_path):
    code = """
import sys, time
from ptycho_backend.data.run_folder import Contents, run_folder
from ptycho_backend.errors import OutputError
try:
    with run_folder(sys.argv[1], Contents(("a",), ("a",))) as folder:
        (folder / "a").write_text("x")
        time.sleep(1.0)
except OutputError as error:
    sys.exit(error.rule)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = sorted(process.communicate()[1] for process in both)
    assert sorted(process.returncode for process in both) == [0, 1]
    assert errors[0] == ""
    assert "one command at a time" in errors[1] or "empty folder" in errors[1]


def test_a_different_owner_is_no_owner_here(run):
    owner = replace(ProcessOwner.current(), host="elsewhere")
    lock_of(run, host="elsewhere")
    assert owner_of(run) == owner
    shutil.rmtree(control_folder(run))
