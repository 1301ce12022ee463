"""Mutate the token engine's core in a copy, run the tests on each mutant, count kills: `make mutate`.

A mutant counts as killed only when an assertion of a test failed. A time-out is no kill, and neither is a test
that broke by another error; each of the three is counted apart. `--again` tries only the living ones of the last
run, with the tests as they are now; `--report` only prints.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
COPY = TOP / ".cache" / "mutation"
CONFIG = "tests/mutation/cosmic_ray.toml"
SESSION = "session.sqlite"
GOAL = 0.90
NEEDED = (
    "token_engine",
    "tests/__init__.py",
    "tests/token_engine",
    "tests/vectors",
    "tests/mutation",
    "pyproject.toml",
)
ASSERTION = re.compile(r"^E +(AssertionError|assert |Failed: DID NOT RAISE)", re.MULTILINE)
CHANGED = re.compile(r"^[-+](?![-+])(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant. `fate` is assertion, other error, time-out or survived."""

    module: str
    line: int
    operator: str
    fate: str
    diff: tuple[str, ...]


def fate_of(test_outcome: str | None, output: str | None) -> str:
    if test_outcome == "SURVIVED":
        return "survived"
    if test_outcome != "KILLED" or output is None:
        return "other error"
    if output == "timeout":
        return "time-out"
    return "assertion" if ASSERTION.search(output) else "other error"


def make_copy() -> None:
    """The mutants live in a copy: the project's own files are never touched, whatever ends the run."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name in NEEDED:
        copy(name)


def copy(name: str) -> None:
    source, target = TOP / name, COPY / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def forget_the_living() -> None:
    """With better tests, only the mutants that no assertion killed are tried again."""
    shutil.rmtree(COPY / "tests")
    for name in NEEDED:
        if name.startswith("tests/"):
            copy(name)
    with sqlite3.connect(COPY / SESSION) as session:
        rows = session.execute(
            "SELECT job_id, test_outcome, output FROM work_results WHERE worker_outcome != 'SKIPPED'"
        )
        alive = [
            (job,) for job, outcome, output in rows.fetchall() if fate_of(outcome, output) != "assertion"
        ]
        session.executemany("DELETE FROM work_results WHERE job_id = ?", alive)


def run(*command: str) -> None:
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # none of them is needed, and each start is paid a thousand times
        "HYPOTHESIS_STORAGE_DIRECTORY": str(COPY / ".hypothesis"),
    }
    subprocess.run(command, cwd=COPY, env=environment, check=True)


def verdicts() -> list[Verdict]:
    with sqlite3.connect(COPY / SESSION) as session:
        rows = session.execute(
            "SELECT module_path, start_pos_row, operator_name, test_outcome, output, diff"
            " FROM mutation_specs JOIN work_results USING (job_id)"
            " WHERE worker_outcome != 'SKIPPED' ORDER BY module_path, start_pos_row, operator_name, occurrence"
        ).fetchall()
    return [
        Verdict(module, line, operator, fate_of(outcome, output), tuple(CHANGED.findall(diff or "")))
        for module, line, operator, outcome, output, diff in rows
    ]


def report(found: list[Verdict]) -> int:
    """Print the table and every mutant that no assertion killed; 1 when they are too many."""
    by_module: dict[str, Counter[str]] = defaultdict(Counter)
    for one in found:
        by_module[one.module][one.fate] += 1
        by_module["all"][one.fate] += 1
    print(
        "| module | mutants | killed by an assertion | other error | time-out | survived |\n|---|---|---|---|---|---|"
    )
    for module, fates in by_module.items():
        if module == "all":
            continue
        print(row(module, fates))
    print(row("all", by_module["all"]))
    for one in found:
        if one.fate != "assertion":
            before, after = (*one.diff, "", "")[:2]
            print(
                f"\n{one.fate}: {one.module}:{one.line} {one.operator}\n  - {before.strip()}\n  + {after.strip()}"
            )
    killed = by_module["all"]["assertion"] / max(1, len(found))
    print(f"\n{killed:.1%} of {len(found)} mutants killed by an assertion, wanted {GOAL:.0%}")
    return 0 if found and killed >= GOAL else 1


def row(module: str, fates: Counter[str]) -> str:
    total = fates.total()
    killed = fates["assertion"]
    return (
        f"| {module} | {total} | {killed} ({killed / total:.1%}) | {fates['other error']} "
        f"| {fates['time-out']} | {fates['survived']} |"
    )


def main() -> int:
    if "--again" in sys.argv:
        forget_the_living()
    elif "--report" not in sys.argv:
        make_copy()
        run("cosmic-ray", "init", CONFIG, SESSION)
        run("cr-filter-operators", SESSION, CONFIG)
    if "--report" not in sys.argv:
        run("cosmic-ray", "--verbosity=ERROR", "baseline", CONFIG)
        run("cosmic-ray", "exec", CONFIG, SESSION)
    return report(verdicts())


if __name__ == "__main__":
    sys.exit(main())
