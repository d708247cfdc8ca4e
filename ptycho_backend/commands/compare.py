"""``ptychopinn compare``: one page of several runs, with a table, their objects and their ring correlations."""

from __future__ import annotations

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options, add_output_options
from ptycho_backend.commands.files import check_new_file
from ptycho_backend.errors import ConfigError
from ptycho_backend.report.comparison import (
    HEADINGS,
    SHORT,
    agreements_of,
    comparison_page,
    comparison_table,
    contents_of,
)
from ptycho_backend.runtime.progress import Terminal

PAGE = "comparison.html"


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "compare",
        "RUN RUN [RUN ...] [--output FILE.html]",
        "Compare several runs on one page; the first run is the reference.",
    )
    line.add("runs", nargs="*", default=[], metavar="RUN", help="Run folders or reconstructions (ptychodus products).")
    add_output_options(line, f"HTML file of the page; without it {PAGE}")
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Compare runs, write their page and show the table."""
    from rich.table import Table

    from ptycho_backend.report.page import write_page

    paths = list(options.runs)
    if len(paths) < 2:
        raise ConfigError(
            "A comparison needs two or more runs.",
            expected="ptychopinn compare RUN RUN",
            received=f"{len(paths)} on the command line",
            fix="name the folders of the runs; 'ptychopinn info RUN' describes a single one",
        )
    target = check_new_file(options.output or PAGE, ".html", options.overwrite)
    contents = contents_of(paths)
    agreements = agreements_of(contents)
    write_page(target, comparison_page(contents, agreements))
    table = Table(box=None, header_style="cyan", pad_edge=False)
    for heading in SHORT:
        table.add_column(heading, overflow="fold")
    for cells in comparison_table(contents, agreements):
        table.add_row(*(cell for heading, cell in zip(HEADINGS, cells, strict=True) if heading in SHORT))
    terminal.show(table)
    terminal.show()
    terminal.show(f"Written to {target}")
