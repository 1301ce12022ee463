"""One soak from start to verdict."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.compare import Found, Wired, compare, drain
from tests.soak.house import VICTIMS, WATCHED, House, Say, Size
from tests.soak.killer import Kill, plan_kills
from tests.soak.memory import Memory, has_grown, measure

DRAIN_S = 180.0
SETTLE_S = 3.0  # for what the gateway read last


@dataclass
class Result:
    """What a soak came to."""

    size: Size
    run_s: float
    broker: str = ""
    kills: Counter[str] = field(default_factory=Counter)
    third: dict[str, Memory] = field(default_factory=dict)
    end: dict[str, Memory] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    unreceipted: int = 0
    drained_s: float = 0.0
    messages: int = 0
    unplanned: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What broke the rule, in words; empty when the soak held."""
        said = []
        if not self.found.ok:
            said.append(f"readings: {self.found}")
        if self.unreceipted:
            said.append(f"{self.unreceipted} messages without a receipt")
        said += [f"{name} was never killed" for name in VICTIMS if not self.kills[name]]
        said += [f"died by itself: {death}" for death in self.unplanned]
        for name, third in self.third.items():
            if name not in self.end or has_grown(third, self.end[name], self.run_s):
                said.append(f"memory of {name}: {third} at a third, {self.end.get(name)} at the end")
        return said


async def soak(folder: Path, size: Size, *, run_s: float, every_s: float, seed: int, say: Say) -> Result:
    """Start everything, run, kill, stop making trouble, wait for the last receipts, compare."""
    house = House(folder, size, say)
    result = Result(size, run_s)
    async with house.supervisor:
        await house.start()
        result.broker = house.broker_name
        say(f"{size.meters} MQTT and {size.modbus} Modbus meters are online; {run_s:g} s begin")
        deaths_ms = await _run(house, result, plan_kills(VICTIMS, run_s=run_s, every_s=every_s, seed=seed))
        end_ms = time.time_ns() // 1_000_000
        began = time.monotonic()
        place, result.unreceipted = await drain(house.journal_file, DRAIN_S)
        result.drained_s = time.monotonic() - began
        await asyncio.sleep(SETTLE_S)
        result.messages = place
        wired = Wired(int(size.poll_s * 1000), tuple(deaths_ms), end_ms)
        result.found = await compare(house.journal_file, house.database_url, place, wired)
        result.unplanned = [death for death in house.deaths if "SIGKILL" not in death]
    return result


async def _run(house: House, result: Result, kills: list[Kill]) -> list[int]:
    """Kill to plan and measure; returns when the gateway was killed (epoch ms)."""
    began = time.monotonic()
    deaths_ms = []
    marks: list[tuple[float, Kill | dict[str, Memory]]] = [(kill.at_s, kill) for kill in kills]
    marks += [(result.run_s / 3, result.third), (result.run_s, result.end)]
    for at_s, what in sorted(marks, key=lambda mark: mark[0]):
        await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
        if isinstance(what, dict):
            _measure(house, what)
        elif house.supervisor.kill(what.name, signal.SIGKILL):
            result.kills[what.name] += 1
            if what.name == "gateway":
                deaths_ms.append(time.time_ns() // 1_000_000)
    return deaths_ms


def _measure(house: House, into: dict[str, Memory]) -> None:
    for name in WATCHED:
        pid = house.supervisor.pid(name)
        if pid is not None:
            into[name] = measure(pid)
