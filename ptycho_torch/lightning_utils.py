"""Search for the checkpoint of a run."""

from __future__ import annotations

from pathlib import Path

from ptycho_backend.training.checkpoints import FOLDER

BEST, LAST, SUFFIX = "best-checkpoint.ckpt", "last.ckpt", ".ckpt"


def find_best_checkpoint(run_dir: Path | str) -> Path | None:
    """
    Return the checkpoint of the best epoch, or else of the last epoch, or else the newest file.

    Parameters
    ----------
    run_dir : path
        Run folder; its subfolder `checkpoints` is searched.
    """
    folder = Path(run_dir) / FOLDER
    named = [folder / name for name in (BEST, LAST) if (folder / name).is_file()]
    others = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next(iter([*named, *others]), None)
