"""
Makes frameworks impossible to find in a process and its children, as if they were not installed.

Python imports this module at its start where this folder is on PYTHONPATH; `LANE_WITHOUT` names the packages.
"""

import os
import sys
from importlib.machinery import PathFinder

WITHOUT = frozenset(os.environ.get("LANE_WITHOUT", "").split())


class LanePathFinder(PathFinder):
    """Finds what Python finds, but for the packages that the lane lacks."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        """Return where a module is; None where it is not."""
        return None if fullname.partition(".")[0] in WITHOUT else super().find_spec(fullname, path, target)


sys.meta_path[:] = [LanePathFinder if finder is PathFinder else finder for finder in sys.meta_path]
