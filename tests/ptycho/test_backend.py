"""Import and setup errors of the TensorFlow engine."""

import os
import subprocess
import sys

import keras
import pytest

from ptycho.engine.backend import TensorFlowBackend
from ptycho_backend.engines.contract import Backend
from ptycho_backend.errors import BackendSetupError


def python(code, **environment):
    """Run code in a fresh interpreter and return what it printed."""
    inherited = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_engine_imports_only_its_framework_on_first_use():
    loaded = python(
        "import sys, ptycho, ptycho.engine.backend\n"
        "frameworks = {'tensorflow', 'keras', 'torch', 'jax'}\n"
        "print(sorted(frameworks & set(sys.modules)))\n"
        "ptycho.engine.backend.TensorFlowBackend()\n"
        "import ptycho.engine.training\n"
        "print(sorted(frameworks & set(sys.modules)))"
    )
    assert loaded.splitlines() == ["[]", "['keras', 'tensorflow']"]


@pytest.mark.parametrize("wrong", ["torch", "jax"])
def test_keras_on_another_framework_is_an_error_without_its_import(wrong):
    printed = python(
        "import sys\n"
        "from ptycho.engine.backend import TensorFlowBackend\n"
        "from ptycho_backend.errors import BackendSetupError\n"
        "try:\n"
        "    TensorFlowBackend()\n"
        "except BackendSetupError as error:\n"
        "    print(error, sorted({'torch', 'jax', 'keras'} & set(sys.modules)))",
        KERAS_BACKEND=wrong,
    )
    assert "KERAS_BACKEND=tensorflow" in printed
    assert repr(wrong) in printed
    assert printed.endswith("[]")


def test_an_imported_keras_on_another_framework_is_an_error(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(BackendSetupError, match="jax"):
        TensorFlowBackend()


def test_the_engine_has_name_versions_and_devices():
    engine = TensorFlowBackend()
    assert isinstance(engine, Backend)
    assert engine.name == "tensorflow"
    assert set(engine.versions()) == {"tensorflow", "keras"}
    assert engine.devices()[0] == "cpu"
