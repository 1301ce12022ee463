"""docs/traps.md names a test for each trap, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
TEXT = (TOP / "docs" / "traps.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ROWS = [
    line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| #", "| trap"))
]
NUMBERED = 15


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((TOP / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED.findall(TEXT))))
def test_the_named_test_exists(path: str, name: str) -> None:
    assert (TOP / path).is_file(), f"there is no {path}"
    assert name in names_in(path), f"{path} has no {name}"


def test_every_trap_has_a_test() -> None:
    assert [row for row in ROWS if not NAMED.search(row)] == []
    numbers = [int(row.split("|")[1]) for row in ROWS if row.split("|")[1].strip().isdigit()]
    assert numbers == list(range(1, NUMBERED + 1))


def test_nothing_is_named_in_another_form() -> None:
    assert len(re.findall(r"::", TEXT)) == len(NAMED.findall(TEXT))
