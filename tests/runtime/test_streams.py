"""Terminal streams: printable text, any encoding, and failures that cost messages only."""

import errno
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from ptycho_backend.runtime.printable import UNPRINTABLE, encodable, printable, usable_width
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.runtime.streams import SafeConsole, SafeStream


class Failing(io.StringIO):
    """Stream that fails from its second text on."""

    def __init__(self, error):
        super().__init__()
        self.failure, self.calls = error, 0

    def write(self, text):
        self.calls += 1
        if self.calls > 1:
            raise self.failure
        return super().write(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb\x00\x7f\x9b", r"a\x0db\x00\x7f\x9b"),
        ("\u202eexe\u2066", r"\u202eexe\u2066"),
        (b"out\xff".decode(errors="surrogateescape"), r"out\xff"),
        ("\ud800", r"\ud800"),
        ("a\tb\nc × µ² é 試料", "a\tb\nc × µ² é 試料"),
    ],
)
def test_control_characters_become_escapes(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_can_be_written_anywhere(text):
    shown = printable(text)
    assert not UNPRINTABLE.search(shown)
    assert printable(shown) == shown
    for encoding in ("utf-8", "ascii", "latin-1", "cp1252"):
        encodable(shown, encoding).encode(encoding)


def test_units_have_ascii_substitutes():
    assert encodable("64×64 px, 3 µm², 5 ± 1 …", "ascii") == "64x64 px, 3 um^2, 5 +- 1 ..."
    assert encodable("64×64 µm", "latin-1") == "64×64 µm"
    assert encodable("試", "ascii") == r"\u8a66"
    assert encodable("×", "no such encoding") == "x"


@pytest.mark.parametrize(("columns", "width"), [(0, 80), (1, 80), (19, 80), (20, 20), (200, 200)])
def test_usable_width(columns, width, monkeypatch):
    assert usable_width(columns) == width
    monkeypatch.setenv("COLUMNS", str(columns))
    assert SafeConsole().width == width


@pytest.mark.parametrize("content", ["a\x1b[2Jb", Text("a\x1b[2Jb", "red"), "table"])
def test_console_shows_escapes_for_any_content(content, capsys):
    if content == "table":
        content = Table("\x1b[2J")
        content.add_row("a\x1b[2Jb")
    SafeConsole().print(content, markup=False)
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert r"a\x1b" in shown


def test_colours_of_the_program_remain():
    console = SafeConsole()
    console._force_terminal, console._color_system = True, 1
    with console.capture() as capture:
        console.print(Text("a\x1b[2J", "red"))
    assert "\x1b[31m" in capture.get()
    assert "\x1b[2J" not in capture.get()


def test_reader_that_goes_is_no_error():
    stream = SafeStream(Failing(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    for text in ("one", "two", "three"):
        assert stream.write(text) == len(text)
    stream.flush()
    assert stream.error is None


def test_other_failures_are_recorded():
    inner = Failing(OSError(errno.ENOSPC, "No space left on device"))
    stream = SafeStream(inner)
    for text in ("one", "two", "three"):
        stream.write(text)
    assert stream.error is inner.failure
    assert inner.calls == 2
    closed = io.StringIO()
    closed.close()
    stream = SafeStream(closed)
    assert not stream.isatty()
    stream.write("text")
    assert isinstance(stream.error, ValueError)


def test_process_without_a_stream(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    terminal = Terminal()
    terminal.write("Interrupted", "", "bold red")
    terminal.err.file.flush()
    assert not terminal.interactive


def test_warnings_are_collected():
    terminal = Terminal()
    terminal.log(20, "information")
    terminal.log(30, "a warning")
    assert terminal.warnings == ["a warning"]


def test_json_mode_shows_the_document_only(capsys):
    terminal = Terminal(quiet=True)
    terminal.json = True
    terminal.show("a table")
    terminal.show_text("{}")
    assert capsys.readouterr().out == "{}\n"
