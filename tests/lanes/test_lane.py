"""Packages hidden by a lane cannot be imported, in this process and in its child processes."""

import importlib
import os
import subprocess
import sys

import pytest

WITHOUT = os.environ.get("LANE_WITHOUT", "").split()


@pytest.mark.parametrize("package", WITHOUT or [pytest.param("", marks=pytest.mark.skip(reason="not in a lane"))])
def test_hidden_packages_cannot_be_imported(package):
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(package)
    child = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in child.stderr
