"""Memory of each process of a soak (PSS), at a third of the run and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from raseed import processes

MAX_GROWTH = 1.1
# Before ten minutes a process is still filling its pools: that much on top is no leak.
WARM_UP_BYTES = 12 * 1024 * 1024
WARM_AFTER_S = 600.0


@dataclass(frozen=True, slots=True)
class Memory:
    """PSS in bytes; `shared` is the part in shared memory: a database's page cache, bounded by its setting."""

    total: int
    shared: int

    @property
    def own(self) -> int:
        return self.total - self.shared


def measure(pid: int) -> Memory:
    """Memory of a process and all below it."""
    total = shared = 0
    for one in processes.process_tree([pid]):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:  # it ended meanwhile
            continue
        for line in lines:
            name, _, rest = line.partition(":")
            if name == "Pss":
                total += int(rest.split()[0]) * 1024
            elif name == "Pss_Shmem":
                shared += int(rest.split()[0]) * 1024
    return Memory(total, shared)


def has_grown(third: Memory, end: Memory, run_s: float) -> bool:
    """Whether a process grew by more than a tenth; its shared page cache does not count."""
    slack = 0 if run_s >= WARM_AFTER_S else WARM_UP_BYTES
    return end.own > third.own * MAX_GROWTH + slack
