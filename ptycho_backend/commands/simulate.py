"""``ptychopinn simulate``: simulate a scan with a known object."""

from __future__ import annotations

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_config_options, add_message_options, add_output_options
from ptycho_backend.commands.describe import scan_rows
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import check_new_file
from ptycho_backend.config import fields_of
from ptycho_backend.data.npz import write_npz
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.simulation.simulate import SimulationConfig, simulate_scan


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "simulate", "--output SCAN.npz [options]", "Simulate a scan with a known object, probe and positions."
    )
    add_output_options(line, "NPZ file to write")
    add_config_options(line)
    add_message_options(line)
    line.add_section("", SimulationConfig, "Simulation")
    line.usual = (
        *("--output", "--N", "--n_positions", "--photons_per_pattern", "--object_name", "--probe_name", "--scan_name"),
        *("--seed", "--overwrite", "--config", "--print-config", "--quiet"),
    )
    return line


def configs(options: Namespace) -> SimulationConfig:
    """Return the content of ``--print_config``."""
    return SimulationConfig(**{name: options[name] for name in fields_of(SimulationConfig)})


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Simulate, write and describe a scan."""
    config = configs(options)
    output = check_new_file(line.require(options, "output", "--output scan.npz"), ".npz", options.overwrite)
    scan = simulate_scan(config)
    write_npz(scan, output, options.overwrite)
    show_rows(terminal, f"Simulated scan, {output}", scan_rows(scan))
    terminal.show(f"\nNext: ptychopinn train {output} --output {output.with_suffix('')}-run")
