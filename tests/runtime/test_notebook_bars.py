"""Progress for Python: bars in a notebook and on a terminal, log lines elsewhere."""

import io
import sys
import types

import pytest
from rich.console import Console

import ptycho_backend as pb
from ptycho_backend.events import EpochEvent, StageEvent
from ptycho_backend.runtime import notebook_bars, progress, streams
from ptycho_backend.runtime.progress import Bars, EventLog


class Notebook:
    """Outputs of a notebook: each is the list of its versions."""

    def __init__(self):
        self.outputs = []

    def display(self, html, display_id=False):
        assert display_id is True
        self.outputs.append([html])
        return types.SimpleNamespace(update=self.outputs[-1].append)


@pytest.fixture
def notebook(monkeypatch):
    """Return the notebook in which this process seems to run."""
    found = Notebook()
    module = types.SimpleNamespace(HTML=str, display=found.display)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(display=module))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(Console, "__init__", _in_notebook(Console.__init__))
    monkeypatch.setattr(notebook_bars, "DRAW_EVERY_S", 0.0)
    return found


def _in_notebook(original):
    def replaced(self, *arguments, **settings):
        original(self, *arguments, **settings)
        self.is_jupyter = settings.get("force_jupyter") is not False

    return replaced


def test_one_output_is_replaced(notebook):
    with pb.progress() as on_event:
        for done in (1, 2, 4):
            on_event(StageEvent("iterations", done, 4, f"error <{done}>"))
    (versions,) = notebook.outputs
    assert len(versions) == 5
    assert "preparing" in versions[0]
    assert "25%" in versions[1]
    assert "100%" in versions[-1]
    assert "error &lt;4&gt;" in versions[-1]
    assert "\x1b" not in "".join(versions)
    assert versions[-1].startswith('<div style="white-space:pre')


def test_drawing_is_throttled_and_ends_up_to_date(notebook, monkeypatch):
    monkeypatch.setattr(notebook_bars, "DRAW_EVERY_S", 100.0)
    with pb.progress() as on_event:
        for done in range(1, 101):
            on_event(StageEvent("iterations", done, 100))
    (versions,) = notebook.outputs
    assert len(versions) == 3
    assert "100%" in versions[-1]


def test_the_last_state_stays_after_a_failure(notebook):
    def fail():
        with pb.progress() as on_event:
            on_event(EpochEvent(1, 2, {"a_train_loss": 0.5}))
            on_event(StageEvent("iterations", 1, 2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "50%" in notebook.outputs[0][-1]


def test_bars_on_a_terminal(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(streams, "SafeConsole", lambda stderr: console)
    with pb.progress() as on_event:
        assert isinstance(on_event, Bars)
        on_event(StageEvent("iterations", 2, 2))
    assert "100%" in console.file.getvalue()


def test_log_lines_elsewhere(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level("INFO"), pb.progress() as on_event:
        assert isinstance(on_event, EventLog)
        on_event(StageEvent("iterations", 2, 2, "error 0.1"))
    assert caplog.messages == ["iterations: 2 of 2, error 0.1"]
    assert sys.stderr.getvalue() == ""


def test_the_names_are_public():
    assert {"progress", "StageEvent", "BatchEvent", "EpochEvent"} <= set(pb.__all__)
    assert pb.progress is progress.progress


@pytest.mark.slow
def test_a_real_kernel_shows_one_output(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    code = """
    import ptycho_backend as pb
    with pb.progress() as on_event:
        for done in range(1, 5):
            on_event(pb.StageEvent("iterations", done, 4, "error 0.1"))
    """
    import textwrap

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(code))])
    nbclient.NotebookClient(notebook, timeout=100, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert "100%" in output.data["text/html"]
