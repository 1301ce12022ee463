"""Our small C programs, compiled where they are needed into the git-ignored cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
CACHE = TOP / ".cache" / "c"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")


class NoCompiler(Exception):
    """This machine lacks cc, or libmodbus with its headers; the text says which."""


@cache
def missing() -> str | None:
    """What is not here of what our C programs need, None when all is."""
    if shutil.which("cc") is None:
        return "cc is not installed"
    probe = subprocess.run(
        ["cc", "-E", "-x", "c", "-"], input=b"#include <modbus/modbus.h>", capture_output=True, check=False
    )
    return "libmodbus-dev is not installed" if probe.returncode else None


def build(source: Path) -> Path:
    """Return the program made of one C file on libmodbus; an unchanged file is compiled once. Raises NoCompiler."""
    if reason := missing():
        raise NoCompiler(reason)
    name = hashlib.sha256(source.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:12]
    program = CACHE / f"{source.stem}-{name}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        new = program.with_suffix(f".{os.getpid()}")  # two workers may compile at once
        subprocess.run(["cc", *FLAGS, "-o", new, source, "-lmodbus"], check=True)
        new.replace(program)
    return program
