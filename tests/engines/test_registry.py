"""Registry of engines: names, late imports and error messages."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import pytest

from ptycho_backend.engines import registry
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.operators import ReferenceOperators
from ptycho_backend.errors import BackendNotInstalledError, DeviceError, UnknownBackendError
from ptycho_backend.runtime.devices import gpu_driver_present


def points(*names):
    return EntryPoints(EntryPoint(name, "somewhere:Engine", registry.GROUP) for name in names)


@pytest.fixture
def world(monkeypatch):
    """Replace entry points and installed packages; clear the cache of engines."""
    state = SimpleNamespace(points=points("tensorflow", "pytorch"), missing=set(), loaded=[])
    monkeypatch.setattr(registry, "entry_points", lambda group: state.points)
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name in state.missing else object())
    monkeypatch.setattr(EntryPoint, "load", lambda point: lambda: state.loaded.append(point.name) or point.name)
    registry._backend.cache_clear()
    yield state
    registry._backend.cache_clear()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("pytorchh", "did you mean 'pytorch'?"),
        ("Tensorflow", "did you mean 'tensorflow'?"),
        ("jax", "lists the engines"),
    ],
)
def test_the_error_for_an_unknown_name_suggests_the_nearest(world, name, nearest):
    with pytest.raises(UnknownBackendError) as caught:
        registry.get_backend(name)
    assert name in caught.value.rule
    assert nearest in caught.value.fix
    assert caught.value.expected == "one of numpy, pytorch, tensorflow"
    assert world.loaded == []


def test_auto_prefers_pytorch(world):
    assert registry.get_backend("auto") == "pytorch"
    assert registry.get_backend() == "pytorch"


@pytest.mark.parametrize("missing", [{"torch"}, {"lightning"}, {"torch", "lightning"}])
def test_auto_is_tensorflow_if_pytorch_is_incomplete(world, missing):
    world.missing = missing
    assert registry.get_backend("auto") == "tensorflow"
    assert registry.available_backends() == ("tensorflow",)
    assert registry.registered_backends() == ("pytorch", "tensorflow")


def test_auto_is_an_external_engine_if_the_others_are_missing(world):
    world.points, world.missing = points("tensorflow", "pytorch", "metal"), {"torch", "tensorflow"}
    assert registry.get_backend("auto") == "metal"
    assert registry.available_backends() == ("metal",)


def test_without_engines_the_error_says_what_to_install(world):
    world.missing = {"torch", "lightning", "tensorflow", "keras"}
    with pytest.raises(BackendNotInstalledError, match="pip install 'ptychopinn\\[torch\\]'"):
        registry.get_backend("auto")
    assert registry.available_backends() == ()


@pytest.mark.parametrize(
    ("name", "missing", "extra"), [("pytorch", "lightning", "torch"), ("tensorflow", "keras", "tensorflow")]
)
def test_a_missing_framework_is_an_error_with_its_extra(world, name, missing, extra):
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
    """The cache does not store failures."""
    world.missing = {"torch"}
    with pytest.raises(BackendNotInstalledError):
        registry.get_backend("pytorch")
    world.missing = set()
    assert registry.get_backend("pytorch") == "pytorch"


def test_other_import_errors_keep_their_message(world, monkeypatch):
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


# --- the NumPy engine, and the kernels of the solver -----------------------------------------------------------------


def test_numpy_engine_is_built_in_and_never_automatic(world):
    world.missing = {"torch", "lightning", "tensorflow", "keras"}
    engine = registry.get_backend("numpy")
    assert (engine.name, engine.devices()) == ("numpy", ("cpu",))
    assert set(engine.versions()) == {"numpy", "scipy"}
    assert isinstance(engine.solver_kernels(), NumpyKernels)
    assert isinstance(engine.operators(), ReferenceOperators)
    with pytest.raises(BackendNotInstalledError):
        registry.get_backend("auto")


@pytest.mark.parametrize("method", ["create_model", "fit"])
def test_numpy_engine_has_no_networks(method):
    engine = registry.get_backend("numpy")
    with pytest.raises(BackendNotInstalledError, match=r"ptychopinn\[torch\].*ptychopinn\[tensorflow\]"):
        getattr(engine, method)(*[None] * (2 if method == "create_model" else 5))
    with pytest.raises(BackendNotInstalledError, match="ptychopinn"):
        registry.network_backend("numpy")
    with pytest.raises(DeviceError):
        engine.operators("cuda")


class GpuEngine:
    """Engine that finds GPUs and names the device of its kernels."""

    name = "gpu"

    def __init__(self, *devices):
        self.found = ("cpu", *devices)

    def devices(self):
        return self.found

    def solver_kernels(self, device):
        return f"kernels on {device}"


@pytest.fixture
def engine(world, monkeypatch):
    """Let every engine be one with two GPUs, on a machine with their driver."""
    engine = GpuEngine("cuda:0", "cuda:1")
    monkeypatch.setattr(EntryPoint, "load", lambda point: world.loaded.append(point.name) or (lambda: engine))
    monkeypatch.setattr(registry, "gpu_driver_present", lambda: True)
    return engine


@pytest.mark.parametrize("backend", ["auto", "pytorch", "tensorflow", "numpy"])
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_kernels_without_a_gpu_are_numpy_and_import_no_framework(world, monkeypatch, backend, device):
    monkeypatch.setattr(registry, "gpu_driver_present", lambda: False)
    assert isinstance(registry.solver_kernels(backend, device), NumpyKernels)
    assert world.loaded == []


@pytest.mark.parametrize("backend", ["auto", "pytorch", "tensorflow"])
def test_kernels_on_a_gpu_are_those_of_the_engine(world, engine, backend):
    assert registry.solver_kernels(backend) == "kernels on cuda:0"
    assert registry.solver_kernels(backend, "cuda") == "kernels on cuda:0"
    assert registry.solver_kernels(backend, "cuda:1") == "kernels on cuda:1"
    assert world.loaded == ["tensorflow" if backend == "tensorflow" else "pytorch"]
    with pytest.raises(DeviceError, match="cuda:7"):
        registry.solver_kernels(backend, "cuda:7")


def test_processor_is_chosen_beside_a_gpu(world, engine):
    assert isinstance(registry.solver_kernels("pytorch", "cpu"), NumpyKernels)
    assert isinstance(registry.solver_kernels("numpy"), NumpyKernels)
    assert world.loaded == []


def test_driver_without_a_gpu_that_the_engine_finds(engine):
    engine.found = ("cpu",)
    assert isinstance(registry.solver_kernels(), NumpyKernels)
    with pytest.raises(DeviceError, match="cuda"):
        registry.solver_kernels("auto", "cuda")


def test_kernels_without_any_framework(world, monkeypatch):
    world.missing = {"torch", "lightning", "tensorflow", "keras"}
    monkeypatch.setattr(registry, "gpu_driver_present", lambda: True)
    assert isinstance(registry.solver_kernels(), NumpyKernels)
    with pytest.raises(DeviceError, match="cuda"):
        registry.solver_kernels("auto", "cuda")
    with pytest.raises(BackendNotInstalledError, match="ptychopinn"):
        registry.solver_kernels("pytorch", "cpu")


def test_kernels_of_an_unknown_engine(world):
    with pytest.raises(UnknownBackendError, match="did you mean 'numpy'"):
        registry.solver_kernels("nunpy", "cpu")


@pytest.mark.parametrize(
    ("files", "present"),
    [((), False), (("null", "nvidiactl"), False), (("nvidia0",), True), (("nvidia3",), True), (("kfd",), True)],
)
def test_driver_of_a_gpu_is_seen_by_its_files(tmp_path, files, present):
    for name in files:
        (tmp_path / name).touch()
    assert gpu_driver_present(tmp_path) is present
