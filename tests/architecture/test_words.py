"""Words and prose: one word for each idea, and sentences that a reader of another language can follow."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ptycho_backend", "ptycho", "ptycho_torch")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for folder in ("docs", "specs", "benchmarks") for path in (ROOT / folder).rglob("*.md")),
    ]
)

# Each has a standard term: docs/adr/ADR-015-house.md gives the table.
REFUSED = (
    *("passes", "overlap_passes", "refine_passes", "polish", "keeper", "follower", "course", "told", "heard", "owes"),
    *("turn_to", "settled", "lit", "misfit", "half_scans", "side_by_side", "over_modes", "spellings", "chatter"),
    *("verdict", "lessons"),
)
AS_NAME = re.compile(rf"(?:^|_)({'|'.join(REFUSED)})(?:_|$)")
AS_PROSE = re.compile(rf"\b({'|'.join(word.replace('_', '[ _-]') for word in REFUSED)})\b", re.IGNORECASE)
# Code computes, returns, reports and raises; only people do these things.
HUMAN = re.compile(r"\b(asks?|tells?|owes?|hears?|knows?|endures?|judges?)\b", re.IGNORECASE)
NO_NOUN = re.compile(r"(Of|That|As|What|Where|How|Who|Which)\b")
RETURNS_A_QUESTION = re.compile(r"(Return|Yield|Give) (what|where|how|who)\b")
MAX_WORDS = 25
MAX_COLUMNS = 120

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_module = pytest.mark.parametrize("path", MODULES, ids=name_of)
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


def snake(name: str) -> str:
    """Return a name in CamelCase or capitals as words with underscores."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names that code defines or uses, with their lines."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Name):
            yield line, node.id
        elif isinstance(node, ast.Attribute):
            yield line, node.attr
        elif isinstance(node, Definition):
            yield line, node.name
        elif isinstance(node, ast.arg | ast.keyword) and node.arg:
            yield line, node.arg


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield docstrings with the lines they begin on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | Definition) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type:")):
            yield token.start[0], token.string.lstrip("# ")


def entries(docstring: str) -> Iterator[str]:
    """Yield the first line of the description of each parameter, attribute and returned value."""
    lines, section = docstring.splitlines(), ""
    for number, line in enumerate(lines):
        if number and re.fullmatch(r"-{3,}", line):
            section = lines[number - 1]
        described = number and line.startswith("    ") and not lines[number - 1].startswith("    ")
        if described and section in ("Parameters", "Attributes", "Returns", "Yields"):
            yield line.strip()


def sentences(docstring: str) -> Iterator[str]:
    """Yield the sentences of a docstring; code, mathematics and headings are none."""
    text = re.sub(
        r"^ *(?:>>> .*|[-=]{3,}|Parameters|Returns|Yields|Raises|Notes|Attributes|Warns)$", ".", docstring, flags=re.M
    )
    text = re.sub(r"^\S.* : .*$", ".", text, flags=re.M)  # name and type of a parameter
    text = re.sub(r"``[^`]*``|`[^`]*`|\([^()]*\)", "x", text)
    for paragraph in re.split(r"\n\s*\n", text):
        yield from re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split()))


@each_module
def test_names_are_the_field_s_words(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert [f"line {line}: {name}" for line, name in identifiers(tree) if AS_NAME.search(snake(name))] == []


@each_module
def test_docstrings_and_comments_are_plain(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = []
    for line, text in docstrings(tree):
        found += [f"line {line}: {match[0]}" for pattern in (AS_PROSE, HUMAN) for match in pattern.finditer(text)]
        found += [f"line {line}: {entry[:60]}" for entry in entries(text) if NO_NOUN.match(entry)]
        found += [f"line {line}: {text[:60]}"] if RETURNS_A_QUESTION.match(text) else []
        found += [
            f"line {line}: {len(sentence.split())} words: {sentence[:60]}"
            for sentence in sentences(text)
            if len(sentence.split()) > MAX_WORDS
        ]
    for line, text in comments(path):
        found += [f"line {line}: {match[0]}" for pattern in (AS_PROSE, HUMAN) for match in pattern.finditer(text)]
    assert found == []


@each_module
def test_messages_are_plain(path):
    """Texts of errors, warnings, log lines and help: constants of several words."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | Definition) and ast.get_docstring(node)
    }
    texts = [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documented
        and node.value.count(" ") > 1
    ]
    found = [
        f"line {line}: {match[0]}"
        for line, text in texts
        for pattern in (AS_PROSE, HUMAN)
        for match in pattern.finditer(text)
    ]
    assert found == []


@each_document
def test_documents_are_plain(path):
    """Rows of tables and addresses cannot be wrapped; code and quoted names are not prose."""
    found, in_code = [], False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        in_code ^= line.lstrip().startswith("```")
        if in_code or line.lstrip().startswith("```"):
            continue
        if len(line) > MAX_COLUMNS and not line.startswith("|") and " " in line.strip():
            found.append(f"line {number}: {len(line)} columns")
        prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)
        found += [f"line {number}: {match[0]}" for pattern in (AS_PROSE, HUMAN) for match in pattern.finditer(prose)]
    assert found == []


def test_the_checks_can_fail():
    """Controls: every kind of fault is found."""
    assert AS_NAME.search(snake("OverlapPasses"))
    assert AS_NAME.search("lit_half")
    assert not AS_NAME.search("split")
    assert [m[0] for m in AS_PROSE.finditer("A pass. Two half scans; the course, told.")] == [
        "half scans",
        "course",
        "told",
    ]
    assert HUMAN.search("An engine asks what comes next.")
    text = "Do it.\n\nParameters\n----------\nx : int\n    Of the scan.\n\nReturns\n-------\nfloat\n    Sum.\n"
    assert list(entries(text)) == ["Of the scan.", "Sum."]
    assert [len(s.split()) for s in sentences("One two three. Four five\nsix seven.")] == [3, 4]
    assert RETURNS_A_QUESTION.match("Return what is left.")
