"""
The documents say what is true: links lead somewhere, cited clauses exist, tables of options are those of the code.

``python tests/architecture/test_documents.py`` writes the tables of options and keywords again.
"""

import ast
import dataclasses
import importlib
import inspect
import json
import re
import shlex
import subprocess
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

import annotated_types
import pytest

import ptycho_backend as pb
from ptycho_backend.commands import COMMANDS, MODULES
from ptycho_backend.config import ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig, fields_of
from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.model import Model
from ptycho_torch import config_params
from ptycho_torch.api.keywords import KEYWORDS

ROOT = Path(__file__).parents[2]
CONFIGS = (ModelConfig, TrainingConfig, InferenceConfig, ExecutionConfig)
WITH_TABLES = {"specs/config.md": len(CONFIGS), "specs/ptychodus_api_spec.md": 1}
SPECS = (
    "backend_contract",
    "config",
    "data",
    "metrics",
    "model_file",
    "network",
    "physics",
    "simulation",
    "ptychodus_api_spec",
)
NOT_OURS = {".venv", ".git", "node_modules", "build", "dist", "demo", "runs", ".hypothesis", ".pytest_cache"}

NUMBER = r"\d+(?:\.\d+)*"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


# --- Markdown ------------------------------------------------------------------------------------------------------


def markdown_files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.md")) if not NOT_OURS & set(path.relative_to(ROOT).parts)]


def prose(path: Path) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {text.replace(" ", "-") for text in plain}


@pytest.mark.parametrize("path", markdown_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_resolve(path):
    broken = []
    for target in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("path", markdown_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_files_exist(path):
    """A path in code quotes that begins with a folder of this project names something that is there."""
    if path.name == "CHANGELOG.md":
        return
    folders = "ptycho_backend|ptycho_torch|ptycho|tests|specs|docs|benchmarks"
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", prose(path))
    assert [name for name in named if not (ROOT / name).exists()] == []


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """Yield every code block of some languages with the name of its document."""
    for path in markdown_files():
        # Outside, language, inside, outside, ...: fences come in pairs.
        pieces = re.split(r"^ *```([\w-]*) *$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        for language, block in zip(pieces[1::4], pieces[2::4], strict=True):
            if language in languages:
                yield path.relative_to(ROOT).as_posix(), textwrap.dedent(block)


def commands() -> list[str]:
    lines = [line.strip() for _, block in blocks("sh", "") for line in block.replace("\\\n", " ").splitlines()]
    return sorted({line for line in lines if line.startswith("ptychopinn ")})


@pytest.mark.parametrize("line", commands())
def test_documented_commands_exist_with_their_options(line):
    line = re.sub(r"--config \S+|>.*", "", line)  # files that only a reader has
    _, command, *words = shlex.split(line, comments=True)
    assert command in COMMANDS
    importlib.import_module(f"ptycho_backend.commands.{MODULES.get(command, command)}").command_line().parse(words)


def test_documented_code_uses_what_exists():
    """Names of the front door, and keywords of its configurations."""
    known = {config_type.__name__: set(fields_of(config_type)) for config_type in CONFIGS}
    known["Scan"] = {field.name for field in dataclasses.fields(pb.Scan)}
    found = list(blocks("python"))
    assert len(found) > 5
    for name, block in found:
        for node in ast.walk(ast.parse(block, filename=name)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pb":
                assert node.attr in pb.__all__, f"{name}: pb.{node.attr}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in known:
                unknown = {keyword.arg for keyword in node.keywords} - known[node.func.attr]
                assert not unknown, f"{name}: {node.func.attr}({unknown})"


def make_targets() -> list[str]:
    lines = [line for _, block in blocks("sh") for line in block.splitlines()]
    return sorted({match[1] for line in lines if (match := re.match(r"make ([\w-]+)", line))})


def test_documented_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert make_targets()
    assert [name for name in make_targets() if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_every_spec_is_listed():
    listed = set(re.findall(r"^\| \[(\w+)\.md\]", (ROOT / "specs/README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == set(SPECS)
    assert {path.stem for path in (ROOT / "specs").glob("*.md")} == {"README", *SPECS}


def test_every_decision_is_listed():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert [path.name for path in sorted((ROOT / "docs/adr").glob("*.md")) if path.name not in index] == []


def test_decisions_have_five_parts():
    for path in sorted((ROOT / "docs/adr").glob("ADR-*.md")):
        headings = re.findall(r"^## (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert headings == ["Status", "Context", "Decision", "Alternatives", "Consequences"], path.name


# --- clauses -------------------------------------------------------------------------------------------------------


def clauses(spec: str) -> set[str]:
    """Return the numbers of all clauses, from headings and from the beginnings of paragraphs."""
    text = (ROOT / "specs" / f"{spec}.md").read_text(encoding="utf-8")
    return {number.rstrip(".") for number in re.findall(rf"^(?:#+ )?({NUMBER}\.?) ", text, flags=re.MULTILINE)}


def cited(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield name and clauses for every citation after "spec:" up to the end of its sentence or bracket."""
    for match in re.finditer(r"[Ss]pec:\s*", text):
        rest = text[match.end() :]
        end = re.search(r"\.(?=\s|$)|;|\n\s*\n|\"\"\"|[^(]*\)(?=\.?\s)", rest)
        sentence = re.sub(r"\([^)]*\)", "", rest[: end.end()] if end else rest)
        found = list(re.finditer(rf"([a-z_]+)((?:\s*(?:,|and|to)?\s*{NUMBER})*)", sentence))
        for name, numbers in ((item[1], item[2]) for item in found if item[1] not in ("and", "to")):
            yield name, expanded(numbers)


def expanded(numbers: str) -> list[str]:
    """Return single clauses: "4.1 to 4.3" is three."""
    found = []
    for part in re.split(r",|\band\b", numbers):
        first, _, last = (piece.strip() for piece in part.partition("to"))
        if last:
            stem, _, low = first.rpartition(".")
            found += [f"{stem}.{n}".lstrip(".") for n in range(int(low), int(last.rpartition(".")[2]) + 1)]
        elif first:
            found.append(first)
    return found


def source_files() -> list[Path]:
    return sorted(
        path for package in ("ptycho_backend", "ptycho", "ptycho_torch") for path in (ROOT / package).rglob("*.py")
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(spec: physics 6.1).", [("physics", ["6.1"])]),
        ("Spec: physics 6.1, 7. It is", [("physics", ["6.1", "7"])]),
        ("Spec: config 1 to 4.", [("config", ["1", "2", "3", "4"])]),
        ("Spec: simulation 4.1 to 4.3.", [("simulation", ["4.1", "4.2", "4.3"])]),
        ("Spec: metrics 2 and 3.", [("metrics", ["2", "3"])]),
        ("Spec: data 1 (fields), data 2 (rules).", [("data", ["1"]), ("data", ["2"])]),
        ("(spec: model_file).", [("model_file", [])]),
        ("(spec: data 3.3, 3.5)", [("data", ["3.3", "3.5"])]),
    ],
)
def test_citations_are_read(text, expected):
    """The reader of citations itself, on every form in use."""
    assert list(cited(text)) == expected


@pytest.mark.parametrize("path", source_files(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_cited_clauses_exist(path):
    missing = []
    for name, numbers in cited(path.read_text(encoding="utf-8")):
        assert name in SPECS, f"no specification is called '{name}'"
        missing += [f"{name} {number}" for number in numbers if number not in clauses(name)]
    assert missing == []


@pytest.mark.parametrize("spec", SPECS)
def test_clauses_cited_by_specs_exist(spec):
    text = (ROOT / "specs" / f"{spec}.md").read_text(encoding="utf-8")
    named = re.findall(rf"\b({'|'.join(SPECS)}) ({NUMBER})", text)
    named += [(spec, number) for number in re.findall(rf"\bclauses? ({NUMBER})", text)]
    assert [f"{name} {number}" for name, number in named if number not in clauses(name)] == []


@pytest.mark.parametrize("owner", [Backend, Model], ids=["Backend", "Model"])
def test_every_method_of_the_contract_names_its_clause(owner):
    known = clauses("backend_contract")
    members = {
        name: member.fget if isinstance(member, property) else member
        for name, member in vars(owner).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }
    assert members, "the contract has members"
    for name, member in members.items():
        numbers = re.findall(rf"clause ({NUMBER})", inspect.getdoc(member) or "")
        assert numbers, f"{owner.__name__}.{name} names no clause"
        assert set(numbers) <= known, f"{owner.__name__}.{name} names a clause that does not exist"


# --- tables of options ---------------------------------------------------------------------------------------------


def documented(config_type: type) -> dict[str, str]:
    """Return the text of each parameter in a numpydoc docstring."""
    section = (inspect.getdoc(config_type) or "").partition("Parameters\n----------\n")[2]
    entries = re.findall(r"^(\S[^\n]*?) : [^\n]*\n((?:    [^\n]*\n?)+)", section, flags=re.MULTILINE)
    return {name.strip(): " ".join(text.split()) for names, text in entries for name in names.split(",")}


def described(kind: object) -> str:
    """Return an annotation in words: type, range, choices."""
    if dataclasses.is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(json.dumps(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Annotated:
        base, *limits = typing.get_args(kind)
        return ", ".join([described(base), *(limit for metadata in limits for limit in bounds(metadata))])
    options = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        return f"list of {described(options[0])}"
    if options:
        return " or ".join("none" if option is type(None) else described(option) for option in options)
    return kind.__name__


def bounds(metadata: object) -> Iterator[str]:
    if isinstance(metadata, annotated_types.GroupedMetadata):
        for part in metadata:
            yield from bounds(part)
    for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"), ("multiple_of", "multiple of")):
        value = getattr(metadata, name, None)
        if value is not None and not isinstance(metadata, annotated_types.GroupedMetadata):
            yield f"{sign} {value:g}"


def default_of(field: dataclasses.Field) -> str:
    """Return a default as YAML writes it."""
    if field.default is dataclasses.MISSING:
        return "its defaults"
    return "none" if field.default is None else json.dumps(field.default)


def table(config_type: type) -> str:
    """Return the Markdown table of a config class."""
    texts, kinds = documented(config_type), fields_of(config_type)
    rows = ["| field | values | default | meaning |", "|---|---|---|---|"]
    for field in dataclasses.fields(config_type):
        values = described(kinds[field.name])
        rows.append(f"| `{field.name}` | {values} | {default_of(field)} | {texts[field.name]} |")
    return "\n".join(rows)


KEYWORD_CONFIGS = {
    "data_config": config_params.DataConfig,
    "model_config": config_params.ModelConfig,
    "training_config": config_params.TrainingConfig,
    "inference_config": config_params.InferenceConfig,
}


def keyword_table(part: str) -> str:
    """Return the Markdown table of the keywords of one of the clients' configurations."""
    defaults = KEYWORD_CONFIGS[part]()
    rows = ["| keyword | default | what becomes of it |", "|---|---|---|"]
    for name, keyword in KEYWORDS[part].items():
        rows.append(f"| `{name}` | `{getattr(defaults, name)!r}` | {keyword.describe()} |")
    return "\n".join(rows)


def with_tables(text: str) -> str:
    """Return a document with the tables of the code in the places of the old ones."""
    tables = {f"<!-- fields: {kind.__name__} -->": table(kind) for kind in CONFIGS}
    tables |= {f"<!-- keywords: {part} -->": keyword_table(part) for part in KEYWORDS}
    for start, rows in tables.items():
        pattern = re.compile(f"{re.escape(start)}.*?<!-- end -->", flags=re.DOTALL)
        text = pattern.sub(lambda _, head=start, rows=rows: f"{head}\n{rows}\n<!-- end -->", text)
    return text


@pytest.mark.parametrize("part", KEYWORDS)
def test_every_keyword_of_a_client_has_a_row(part):
    assert list(KEYWORDS[part]) == [field.name for field in dataclasses.fields(KEYWORD_CONFIGS[part])]
    targets = {"model": ModelConfig, "training": TrainingConfig, "inference": InferenceConfig}
    targets["execution"] = ExecutionConfig
    for name in (name for keyword in KEYWORDS[part].values() for name in keyword.fields):
        config, _, field = name.partition(".")
        assert field in fields_of(targets[config]), name
    assert f"<!-- keywords: {part} -->" in (ROOT / "specs/ptychodus_api_spec.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "tables"), WITH_TABLES.items())
def test_tables_of_options_are_those_of_the_code(name, tables):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("<!-- fields: ") == tables
    assert text == with_tables(text), "python tests/architecture/test_documents.py writes the tables again"


@pytest.mark.parametrize(
    "name", ["specs/ptychodus_api_spec.md", "docs/workflows/pytorch.md", "docs/workflows/tensorflow.md"]
)
def test_every_execution_knob_has_a_row_that_says_what_becomes_of_it(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    (rows,) = re.findall(r"<!-- support: ExecutionConfig -->(.*?)<!-- end support -->", text, flags=re.DOTALL)
    named = re.findall(r"^\| `(\w+)` \|", rows, flags=re.MULTILINE)
    assert named == [field.name for field in dataclasses.fields(ExecutionConfig)]
    assert not re.search(r"\| *\|", rows), "no empty cell"


@pytest.mark.parametrize("config_type", CONFIGS)
def test_every_option_is_documented(config_type):
    names = {field.name for field in dataclasses.fields(config_type)}
    assert set(documented(config_type)) == names


# --- files that git keeps ------------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def test_pictures_are_small():
    pictures = [path for path in tracked() if path.suffix in (".png", ".jpg", ".svg")]
    assert [path.name for path in pictures if path.stat().st_size > 200_000] == []


if __name__ == "__main__":
    for name in WITH_TABLES:
        (ROOT / name).write_text(with_tables((ROOT / name).read_text(encoding="utf-8")), encoding="utf-8")
