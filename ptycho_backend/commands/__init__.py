"""The commands of ``ptychopinn``: one module each, with `command_line()` and `run(options, terminal, line)`."""

from __future__ import annotations

COMMANDS = {
    "simulate": "make a scan whose object is known",
    "train": "train a model on a scan, and reconstruct the scan with it",
    "reconstruct": "reconstruct a scan with a trained model",
    "evaluate": "compare a reconstruction with the truth, or with another one",
    "info": "say what a scan, a model or a reconstruction holds",
    "convert": "turn a model archive of PtychoPINN into a model of this package",
    "migrate": "turn a configuration of PtychoPINN into one of this package",
    "backends": "list the engines and the devices they see",
    "parity": "check that the engines compute what the reference computes",
}
