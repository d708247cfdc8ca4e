"""
Hide packages from a process and its child processes, as if they were not installed.

Python imports this module at its start if this folder is on PYTHONPATH. `LANE_WITHOUT` lists the packages.
"""

import os
import sys
from importlib.machinery import PathFinder

WITHOUT = frozenset(os.environ.get("LANE_WITHOUT", "").split())


class LanePathFinder(PathFinder):
    """Path finder without the hidden packages."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        """Return the spec of a module; None for a hidden or missing one."""
        return None if fullname.partition(".")[0] in WITHOUT else super().find_spec(fullname, path, target)


sys.meta_path[:] = [LanePathFinder if finder is PathFinder else finder for finder in sys.meta_path]
