"""Engines are found by name, imported late, and missed in words that help."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import pytest

from ptycho_backend.engines import registry
from ptycho_backend.errors import BackendNotInstalledError, UnknownBackendError


def points(*names):
    return EntryPoints(EntryPoint(name, "somewhere:Engine", registry.GROUP) for name in names)


@pytest.fixture
def world(monkeypatch):
    """Let a test say which entry points and which packages exist; engines are not kept between tests."""
    known = SimpleNamespace(points=points("tensorflow", "pytorch"), missing=set(), loaded=[])
    monkeypatch.setattr(registry, "entry_points", lambda group: known.points)
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name in known.missing else object())
    monkeypatch.setattr(EntryPoint, "load", lambda point: lambda: known.loaded.append(point.name) or point.name)
    registry.get_backend.cache_clear()
    yield known
    registry.get_backend.cache_clear()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("pytorchh", "did you mean 'pytorch'?"),
        ("Tensorflow", "did you mean 'tensorflow'?"),
        ("jax", "lists the engines"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(world, name, nearest):
    with pytest.raises(UnknownBackendError) as caught:
        registry.get_backend(name)
    assert name in caught.value.rule
    assert nearest in caught.value.fix
    assert caught.value.expected == "one of pytorch, tensorflow"
    assert world.loaded == []


def test_auto_prefers_pytorch(world):
    assert registry.get_backend("auto") == "pytorch"
    assert registry.get_backend() == "pytorch"


@pytest.mark.parametrize("missing", [{"torch"}, {"lightning"}, {"torch", "lightning"}])
def test_auto_takes_tensorflow_where_pytorch_is_incomplete(world, missing):
    world.missing = missing
    assert registry.get_backend("auto") == "tensorflow"
    assert registry.available_backends() == ("tensorflow",)
    assert registry.registered_backends() == ("pytorch", "tensorflow")


def test_auto_takes_an_engine_of_somebody_else_where_ours_are_missing(world):
    world.points, world.missing = points("tensorflow", "pytorch", "metal"), {"torch", "tensorflow"}
    assert registry.get_backend("auto") == "metal"
    assert registry.available_backends() == ("metal",)


def test_no_engine_at_all_says_what_to_install(world):
    world.missing = {"torch", "lightning", "tensorflow", "keras"}
    with pytest.raises(BackendNotInstalledError, match="pip install 'ptychopinn\\[torch\\]'"):
        registry.get_backend("auto")
    assert registry.available_backends() == ()


@pytest.mark.parametrize(
    ("name", "missing", "extra"), [("pytorch", "lightning", "torch"), ("tensorflow", "keras", "tensorflow")]
)
def test_a_missing_framework_is_named_with_its_remedy(world, name, missing, extra):
    world.missing = {missing}
    with pytest.raises(BackendNotInstalledError) as caught:
        registry.get_backend(name)
    assert caught.value.received == f"missing: {missing}"
    assert f"pip install 'ptychopinn[{extra}]'" in caught.value.fix
    assert world.loaded == []


def test_an_engine_is_built_once(world):
    assert registry.get_backend("tensorflow") is registry.get_backend("tensorflow")
    assert world.loaded == ["tensorflow"]


def test_a_framework_installed_later_is_found(world):
    """A failure is not remembered."""
    world.missing = {"torch"}
    with pytest.raises(BackendNotInstalledError):
        registry.get_backend("pytorch")
    world.missing = set()
    assert registry.get_backend("pytorch") == "pytorch"


def test_our_own_import_errors_are_shown_as_they_are(world, monkeypatch):
    def broken(point):
        raise ModuleNotFoundError("No module named 'ptycho_torch.typo'", name="ptycho_torch.typo")

    monkeypatch.setattr(EntryPoint, "load", broken)
    with pytest.raises(ModuleNotFoundError, match="typo"):
        registry.get_backend("pytorch")


def test_listing_engines_imports_none():
    code = (
        "import sys; from ptycho_backend.engines.registry import available_backends; available_backends(); "
        "sys.exit(bool({'torch', 'tensorflow', 'keras', 'lightning'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_this_distribution_registers_both_engines():
    assert {"pytorch", "tensorflow"} <= set(registry.registered_backends())
