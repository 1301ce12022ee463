"""The engine stays pure: what it may import, and that nothing in the middle reads a clock, dice or disk."""

import ast
import sys
from pathlib import Path

import pytest

ENGINE = Path(__file__).resolve().parents[2] / "token_engine"
MODULES = sorted(ENGINE.glob("*.py"))
# Modules of the standard library that reach the outside world or are not the same twice.
IMPURE = {
    *("os", "io", "time", "random", "secrets", "pathlib", "socket", "subprocess", "logging", "tempfile"),
    *("shutil", "threading", "asyncio", "uuid", "urllib", "http"),
}
IMPURE_CALLS = {"now", "utcnow", "today", "open", "print", "input", "getenv", "urandom"}


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports(path):
    allowed = set(sys.stdlib_module_names) | {"token_engine", "cryptography"}
    if path.name.endswith("batch.py"):
        allowed.add("numpy")
    names = set(imports_of(ast.parse(path.read_text("utf-8"))))
    assert names <= allowed
    if not path.name.endswith("_vault.py"):
        assert not names & IMPURE


@pytest.mark.parametrize(
    "path", [path for path in MODULES if not path.name.endswith("_vault.py")], ids=lambda path: path.name
)
def test_no_clock_dice_or_disk(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert name not in IMPURE_CALLS, f"line {node.lineno} calls {name}"
