"""Processes that a test starts beside itself and that end with it, also when it fails."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def started(argv: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(argv, **options) as process:
        try:
            yield process
        finally:
            process.kill()
