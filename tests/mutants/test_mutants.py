"""Mutants of `make mutants` apply: the old text of each is exactly once in its file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MUTANTS = yaml.safe_load(Path(__file__).with_name("mutants.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant['file']}: {mutant['name']}")
def test_mutants_change_the_program(mutant):
    text = (ROOT / mutant["file"]).read_text(encoding="utf-8")
    assert text.count(mutant["old"]) == 1
    changed = text.replace(mutant["old"], mutant["new"])
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(text))
    assert all((ROOT / test).exists() for test in mutant.get("tests", []))


def test_there_are_mutants_of_both_engines():
    for engine in ("ptycho/", "ptycho_torch/"):
        assert sum(mutant["file"].startswith(engine) for mutant in MUTANTS) >= 20
