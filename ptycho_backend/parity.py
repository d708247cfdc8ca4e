"""The parity report, under the name that scripts import."""

from ptycho_backend.testing.parity import Report, run_parity

__all__ = ["Report", "run_parity"]
