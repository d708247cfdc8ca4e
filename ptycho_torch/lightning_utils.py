"""Where a training has left its checkpoints."""

from __future__ import annotations

from pathlib import Path

from ptycho_backend.training.checkpoints import FOLDER

BEST, LAST, SUFFIX = "best-checkpoint.ckpt", "last.ckpt", ".ckpt"


def find_best_checkpoint(run_dir: Path | str) -> Path | None:
    """
    Return the checkpoint to use of a run: the best epoch's, else the last one's, else the newest of any name.

    Parameters
    ----------
    run_dir : path
        Folder with a folder `checkpoints`.
    """
    folder = Path(run_dir) / FOLDER
    named = [folder / name for name in (BEST, LAST) if (folder / name).is_file()]
    others = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next(iter([*named, *others]), None)
