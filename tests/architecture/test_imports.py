"""What an import does: it defines names, loads no framework that was not asked for, and nothing else."""

import json
import os
import subprocess
import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ("torch", "lightning", "pytorch_lightning", "tensorflow", "keras")
ENGINES = {
    "ptycho": ("tensorflow", ("torch", "lightning", "pytorch_lightning", "ptycho_torch")),
    "ptycho_torch": ("torch", ("tensorflow", "keras", "ptycho")),
}


def modules_of(package: str) -> list[str]:
    """Return every module of a package that can be imported without running a program."""
    paths = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if not name.endswith("__main__")]


def need(framework: str) -> None:
    if find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")


def run(code: str, folder: Path, *, quiet: bool = True) -> object:
    """Run code in a fresh interpreter inside a folder; its last line on standard output is JSON."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONWARNINGS", None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if quiet:
        assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_every_neutral_module_imports_alone_and_without_a_framework(tmp_path):
    """Each module in a process of its own, so that no module needs another one to have been imported first."""
    loaded = run(
        f"""
        import importlib, json, os, sys
        import h5py, hypothesis.extra.numpy, jsonargparse, numpy, pydantic, rich.progress  # shared by all children
        import matplotlib.figure, scipy.fft, scipy.ndimage, scipy.sparse, scipy.spatial, yaml
        wrong = {{}}
        for name in {modules_of("ptycho_backend")!r}:
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    importlib.import_module(name)
                    answer = sorted(set({FRAMEWORKS!r}) & set(sys.modules))
                except BaseException as error:
                    answer = [repr(error)]
                os.write(writer, json.dumps(answer).encode())
                os._exit(0)
            os.close(writer)
            with os.fdopen(reader) as stream:
                answer = json.load(stream)
            os.waitpid(child, 0)
            if answer:
                wrong[name] = answer
        print(json.dumps(wrong))
        """,
        tmp_path,
        quiet=False,
    )
    assert loaded == {}


def test_the_public_names_load_no_framework(tmp_path):
    code = """
        import json, sys
        from ptycho_backend import *
        import ptycho_backend
        missing = [name for name in ptycho_backend.__all__ if name not in globals()]
        print(json.dumps([missing, sorted(set(%r) & set(sys.modules))]))
    """
    assert run(code % (FRAMEWORKS,), tmp_path) == [[], []]


@pytest.mark.parametrize("package", ENGINES)
def test_importing_an_engine_package_loads_no_framework(package, tmp_path):
    """A client may import both packages and then decide."""
    code = f"import json, sys, {package}; print(json.dumps(sorted(set({FRAMEWORKS!r}) & set(sys.modules))))"
    assert run(code, tmp_path) == []


@pytest.mark.parametrize("module", ["ptycho_torch.config_params", "ptycho_torch.api.keywords"])
def test_settings_of_a_client_load_no_framework(module, tmp_path):
    """An application builds them in a process that must never touch a GPU, and may lack the framework."""
    code = f"import json, sys, {module}; print(json.dumps(sorted(set({FRAMEWORKS!r}) & set(sys.modules))))"
    assert run(code, tmp_path) == []


@pytest.fixture(
    scope="module",
    params=["ptycho_backend", *(pytest.param(name, marks=pytest.mark.slow) for name in ENGINES)],
)
def imported(request, tmp_path_factory):
    """Import every module of a package in a fresh interpreter; return what that changed, and the frameworks in it."""
    package, folder = request.param, tmp_path_factory.mktemp("imported")
    if package in ENGINES:
        need(ENGINES[package][0])
    code = ACTS.format(frameworks=framework_of(package), modules=modules_of(package))
    changed, loaded = run(code, folder, quiet=False)
    return package, changed, loaded, list(folder.iterdir())


def test_an_engine_never_loads_the_other_framework(imported):
    package, _, loaded, _ = imported
    others = ENGINES[package][1] if package in ENGINES else FRAMEWORKS
    assert sorted(set(others) & set(loaded)) == []


def test_nothing_acts_at_import(imported):
    """No file, no environment variable, no log handler, no warning, no random state, no word."""
    _, changed, _, files = imported
    assert changed == {}
    assert files == []


def framework_of(package: str) -> tuple[str, ...]:
    return {"ptycho": ("tensorflow", "keras"), "ptycho_torch": ("torch", "lightning.pytorch")}.get(package, ())


# Frameworks act at import in many ways; what they did before our modules come is not counted.
ACTS = """
import contextlib, importlib, io, json, logging, os, random, signal, sys, warnings
import h5py, hypothesis.extra.numpy, jsonargparse, matplotlib, numpy, pydantic, rich.console, skimage, yaml
import scipy.fft, scipy.sparse.linalg
for name in {frameworks}:
    importlib.import_module(name)

def state():
    found = {{
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "log handlers": [repr(handler) for handler in logging.root.handlers],
        "log level": logging.root.level,
        "random": repr(random.getstate()),
        "numpy random": repr(numpy.random.get_state()),
        "numpy errors": numpy.geterr(),
        "matplotlib": repr(matplotlib.rcParams),
        "signals": repr(signal.getsignal(signal.SIGINT)),
        "hook": repr(sys.excepthook),
        "warning filters": repr(warnings.filters),
    }}
    if "torch" in sys.modules:
        import torch
        found |= {{"torch": repr((torch.get_default_dtype(), torch.get_num_threads(), torch.get_rng_state().sum()))}}
        found |= {{"tf32": torch.backends.cuda.matmul.allow_tf32}}
    return found

streams = io.StringIO()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    before = state()
    with contextlib.redirect_stdout(streams), contextlib.redirect_stderr(streams):
        for name in {modules}:
            importlib.import_module(name)
    after = state()
changed = {{key: [str(before[key])[:200], str(after[key])[:200]] for key in before if before[key] != after[key]}}
ours = [str(w.message) for w in caught if "/ptycho" in w.filename.replace(os.sep, "/")]
if ours:
    changed["warnings"] = ours
if streams.getvalue():
    changed["words"] = streams.getvalue()
print(json.dumps([changed, [name for name in sys.modules if "." not in name]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", [("pytorch", "tensorflow"), ("tensorflow", "pytorch")])
def test_both_engines_live_in_one_process_whichever_comes_first(order, tmp_path):
    """Two frameworks bring two copies of everything: each must still train and predict after the other has."""
    for framework in ("torch", "tensorflow"):
        need(framework)
    losses = run(
        f"""
        import json, logging
        import ptycho_backend as pb
        scan = pb.simulate_scan(N=32, n_positions=9, seed=1)
        losses = {{}}
        for backend in {(*order, *order)!r}:
            model = pb.ModelConfig(N=32, n_filters_scale=1, unrolled_steps=1)
            training = pb.TrainingConfig(model=model, backend=backend, nepochs=1, probe_iterations=0)
            run = pb.train(scan, training, pb.ExecutionConfig(device="cpu", precision="32-true"))
            pb.reconstruct(scan, run.model)
            losses.setdefault(backend, []).append(run.history[0]["poisson_train_loss"])
        print(json.dumps(losses))
        """,
        tmp_path,
        quiet=False,
    )
    first, again = zip(*losses.values(), strict=True)
    assert first == again
    assert first[0] == pytest.approx(first[1], rel=1e-5)
