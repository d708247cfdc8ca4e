"""
Makes frameworks impossible to import in a process and its children, as if they were not installed.

Python imports this module at its start where this folder is on PYTHONPATH; `LANE_WITHOUT` names the packages.
"""

import os
import sys

for package in os.environ.get("LANE_WITHOUT", "").split():
    sys.modules[package] = None
