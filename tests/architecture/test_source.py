"""Rules of the source that a reader may rely on, checked on the syntax tree of every module."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ptycho_backend", "ptycho", "ptycho_torch")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
MAX_THIN_LINES = 150  # of modules that exist for existing users' imports
MAX_PARAMETERS = 6  # besides self
# The front door's one call for a whole training, and what existing users call with these arguments.
MANY_PARAMETERS = {
    "ptycho_backend/api.py": {"train"},
    "ptycho/workflows/components.py": {"run_cdi_example"},
    "ptycho/workflows/data.py": {"load_data"},
    "ptycho/workflows/images.py": {"reassemble_cdi_image"},
}
FORBIDDEN_CALLS = {"print", "eval", "exec", "compile", "input", "breakpoint"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
MUTABLE_CALLS = {"dict", "list", "set", "defaultdict", "OrderedDict", "deque", "Counter", "bytearray"}
# The one global that existing users import by name; nothing but `update_legacy_dict` and old modules touches it.
LEGACY_GLOBALS = {("ptycho_backend/compat/legacy.py", "cfg")}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def code_lines(function: Function, source: list[str]) -> int:
    """Count the lines of a function that hold code: neither docstrings, nor comments, nor blank lines."""
    documented = {
        line
        for node in ast.walk(function)
        if isinstance(node, Definition) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, node.body[0].end_lineno + 1)
    }
    lines = range(function.lineno, function.end_lineno + 1)
    texts = [source[line - 1].strip() for line in lines if line not in documented]
    return sum(1 for text in texts if text and not text.startswith("#"))


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def called_name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def is_mutable(value: ast.expr | None) -> bool:
    displays = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    return isinstance(value, displays) or (isinstance(value, ast.Call) and called_name(value) in MUTABLE_CALLS)


def assigned_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.AnnAssign):
        return [statement.target.id] if isinstance(statement.target, ast.Name) else []
    if isinstance(statement, ast.Assign):
        return [target.id for target in statement.targets if isinstance(target, ast.Name)]
    return []


@each_module
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    lengths = {function.name: code_lines(function, text.splitlines()) for function in functions(ast.parse(text))}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


def test_modules_under_older_names_only_translate():
    """What is long does more than that."""
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in thin_modules()}
    assert len(lengths) > 20
    assert {name: n for name, n in lengths.items() if n > MAX_THIN_LINES} == {}


def thin_modules() -> list[Path]:
    """Return the modules whose clauses are those of the client's names."""
    texts = {path: path.read_text(encoding="utf-8") for path in MODULES if "backend" not in path.parts[-2]}
    return [path for path, text in texts.items() if re.search(r"ptychodus_api_spec\s+4\.1[1-9]", text)]


@each_module
def test_functions_take_few_parameters(path):
    counts = {function.name: n_parameters(function) for function in functions(tree_of(path))}
    many = {name for name, n in counts.items() if n > MAX_PARAMETERS}
    assert many == MANY_PARAMETERS.get(name_of(path), set())


def n_parameters(function: Function) -> int:
    arguments = function.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


@each_module
def test_code_neither_prints_nor_evaluates_nor_unpickles(path):
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FORBIDDEN_CALLS:
            found.append(f"line {node.lineno}: {node.func.id}()")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", None):
            found.append(f"line {node.value.lineno}: allow_pickle")
        if isinstance(node, ast.Import) and {alias.name.partition(".")[0] for alias in node.names} & FORBIDDEN_MODULES:
            found.append(f"line {node.lineno}: import of a pickling module")
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
            found.append(f"line {node.lineno}: import of a pickling module")
    assert found == []


@each_module
def test_files_are_loaded_by_safe_loaders_only(path):
    """``np.load`` and ``torch.load`` unpickle unless they are told not to; ``yaml.load`` runs code."""
    told = {
        "np.load": ("allow_pickle", False),
        "numpy.load": ("allow_pickle", False),
        "torch.load": ("weights_only", True),
    }
    found = []
    for call in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}
        if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            found.append(f"line {call.lineno}: {name}")
        if name in told and given.get(told[name][0]) is not told[name][1]:
            found.append(f"line {call.lineno}: {name} without {told[name][0]}={told[name][1]}")
    assert found == []


def test_every_public_definition_is_documented():
    """Public means reachable by names without an underscore; overrides say what they add, too."""
    missing = []
    for path in MODULES:
        tree = tree_of(path)
        if ast.get_docstring(tree) is None:
            missing.append(name_of(path))
        missing += [f"{name_of(path)}: {name}" for name in undocumented(tree, "")]
    assert missing == []


def undocumented(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in parent.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, f"{prefix}{node.name}.")


@each_module
def test_modules_hold_constants_not_state(path):
    """A mutable value at module level is a constant registry with a name in capitals; nothing is `global`."""
    tree = tree_of(path)
    found = [f"line {node.lineno}: global" for node in ast.walk(tree) if isinstance(node, ast.Global)]
    for statement in tree.body:
        names = [name for name in assigned_names(statement) if is_mutable(statement.value)]
        found += [
            f"line {statement.lineno}: {name}"
            for name in names
            if not (name.lstrip("_").isupper() or name == "__all__" or (name_of(path), name) in LEGACY_GLOBALS)
        ]
    assert found == []


@each_module
def test_registries_are_not_written_to_from_functions(path):
    """What is written in capitals is as the file says it."""
    tree = tree_of(path)
    capitals = {name for statement in tree.body for name in assigned_names(statement) if name.lstrip("_").isupper()}
    changing = {"append", "extend", "insert", "pop", "popitem", "clear", "update", "setdefault", "add", "remove"}
    found = []
    for function in functions(tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                target = node.value
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in changing:
                target = node.func.value
            else:
                continue
            if isinstance(target, ast.Name) and target.id in capitals:
                found.append(f"line {node.lineno}: {target.id}")
    assert found == []


def test_the_checks_can_fail(tmp_path):
    """Controls: source that breaks every rule is found."""
    bad = "state = {}\n\ndef f():\n" + "    a = 1\n" * 41 + "    print(a)\n    exec('a')\n"
    tree = ast.parse(bad)
    (function,) = functions(tree)
    assert code_lines(function, bad.splitlines()) == 44
    assert list(undocumented(tree, "")) == ["f"]
    assert is_mutable(tree.body[0].value)
    calls = [called_name(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert set(calls) & FORBIDDEN_CALLS == {"print", "exec"}
    (wide,) = functions(ast.parse("def g(self, a, /, b, *rest, c=1, **more): ..."))
    assert n_parameters(wide) == 3
