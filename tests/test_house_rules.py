"""The house tests itself: sizes, names, where a transaction may end, one test file a module, logical CSS."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
PACKAGES = ("raseed", "portal", "billing", "meter_gateway", "firmware_sim", "token_engine")
MODULES = sorted(path for package in PACKAGES for path in (TOP / package).rglob("*.py"))
BANNED = re.compile(r"^(utils?|helpers?|common|base|manager|misc)$")
MAX_FUNCTION = 70  # what one screen shows: a longer one has more than one job
MAX_FILE = 500
# The edges: HTTP routes, jobs, ingest batches, command lines. psycopg's own blocks commit there.
COMMIT_EDGES = {"meter_gateway/ingest.py", "raseed/seed.py"}
# Modules that only start other things, or hold names and no behaviour.
WITHOUT_OWN_TEST = {"__init__.py", "__main__.py"}
PHYSICAL_CSS = re.compile(
    r"(?<![\w-])(margin|padding|border)-(left|right)|(?<![\w-])(left|right)\s*:|text-align\s*:\s*(left|right)|float\s*:\s*(left|right)"
)


def relative(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_is_small_and_says_its_job(path: Path) -> None:
    body = path.read_text(encoding="utf-8")
    assert body.count("\n") <= MAX_FILE, (
        f"{relative(path)} has over {MAX_FILE} lines: give it two jobs, two files"
    )
    tree = ast.parse(body)
    assert ast.get_docstring(tree) or not body.strip(), (
        f"{relative(path)}: say the file's one job in a docstring"
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION, (
                f"{relative(path)}:{node.lineno} {node.name} is {length} lines long"
            )
    assert not BANNED.match(path.stem), f"{relative(path)}: a drawer for anything; name its one job"
    assert not re.search(r"\b(TODO|FIXME|NotImplementedError)\b", body), (
        f"{relative(path)}: an unfinished place"
    )


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_only_edges_commit(path: Path) -> None:
    if relative(path) in COMMIT_EDGES:
        return
    assert ".commit(" not in path.read_text(encoding="utf-8"), f"{relative(path)} commits: only an edge may"


@pytest.mark.parametrize("path", [p for p in MODULES if p.name not in WITHOUT_OWN_TEST], ids=relative)
def test_every_module_has_tests(path: Path) -> None:
    """A test file of its own name, or a test that imports it."""
    dotted = relative(path).removesuffix(".py").replace("/", ".")
    package, _, stem = dotted.rpartition(".")
    own = list((TOP / "tests").rglob(f"test_{path.stem}.py"))
    named = re.compile(
        rf"\b{re.escape(dotted)}\b|from {re.escape(package)} import [^\n]*\b{stem}\b"
        rf"|from {re.escape(package)} import \([^)]*\b{stem}\b"
    )
    assert own or any(
        named.search(test.read_text(encoding="utf-8")) for test in (TOP / "tests").rglob("*.py")
    ), f"no test names {dotted}"


def test_migrations_are_numbered_without_gap() -> None:
    numbers = sorted(
        int(path.name[:4]) for package in PACKAGES for path in (TOP / package).glob("schema/*.sql")
    )
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", sorted((TOP / "portal/static").glob("*.css")), ids=relative)
def test_css_knows_no_left_or_right(path: Path) -> None:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        assert not PHYSICAL_CSS.search(line), (
            f"{relative(path)}:{number}: {line.strip()} breaks right-to-left pages"
        )


def test_no_float_in_the_rooms_of_money() -> None:
    for path in (TOP / "billing").glob("*.py"):
        if path.name.endswith("_server.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.id if isinstance(node, ast.Name) else None
            assert name != "float", f"{relative(path)}:{node.lineno}: money is counted in integers"


def test_constraints_pin_names_and_versions_only() -> None:
    for line in (TOP / "constraints.txt").read_text().split("\n"):
        assert not line or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.+!-]*", line), line
