"""Where an engineer's task runs: on this laptop's own port, or at a site's gateway; the survey is the same."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import grp
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

import psycopg

from meter_gateway import order_site_task, site_task_store
from meter_gateway.bus import survey, survey_bus
from meter_gateway.bus.modbus_link import BusDown, BusLink, ModbusError
from meter_gateway.bus.site_file import DEFAULT_QUIET_S, DEFAULT_TIMEOUT_S, BusAddress, Framer
from meter_gateway.bus.survey_bus import PARITIES, Step, Wires
from meter_gateway.profile import Read
from meter_gateway.site_task import check_argument
from raseed.settings import Settings

BAR_WIDTH: Final = 32
LOOK_S: Final = 0.3
LAST_WORD_S: Final = 3.0
# A gateway that says nothing for so long is told of; the task itself has its own deadline.
SILENT_S: Final = 15.0
POLL_S: Final = 1.0  # how often a trace on a laptop asks its unit: nobody else speaks there

Say = Callable[[Step], None]


class FieldRefused(ValueError):
    """What was asked cannot be done; the text says why and what to do."""


class Target(Protocol):
    """A bus that tasks can be run on."""

    framer: str

    async def look(self) -> None:
        """Find out what kind of bus it is. Raises FieldRefused."""
        ...

    async def run(self, kind: str, argument: dict[str, Any], say: Say) -> dict[str, Any]:
        """Run a task and return its result. Raises FieldRefused."""
        ...

    def expected_s(self, kind: str, argument: dict[str, Any]) -> float:
        """Return about how long it takes when nobody answers."""
        ...


def add_target(command: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Let a command name its bus: --tty, --tcp, or --site with --bus."""
    where = command.add_mutually_exclusive_group(required=required)
    where.add_argument("--tty", help="serial port of this machine, as `raseed field ports` lists it")
    where.add_argument("--tcp", metavar="HOST:PORT", help="Modbus TCP device or converter")
    where.add_argument("--site", help="a site's gateway does it, between its polls (DATABASE_URL)")
    command.add_argument("--bus", help="with --site: which of its buses")
    command.add_argument("--framer", choices=("tcp", "rtu_over_tcp"), default="tcp", help="with --tcp (tcp)")
    command.add_argument("--baud", type=int, default=survey.DEFAULT_BAUD, help="with --tty (9600)")
    command.add_argument("--parity", choices=tuple(PARITIES), default="N", help="with --tty (N)")
    command.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def target_of(options: argparse.Namespace, settings: Settings) -> Target:
    """Return the bus that a command names. Raises FieldRefused."""
    if options.site:
        if not options.bus:
            raise FieldRefused("--site needs --bus")
        return SiteBus(settings.need("database_url"), options.site, options.bus)
    return LocalBus(_address(options))


def _address(options: argparse.Namespace) -> BusAddress:
    framer: Framer = "rtu" if options.tty else options.framer
    host, port = "", 0
    if options.tcp:
        host, _, digits = options.tcp.rpartition(":")
        if not host or not digits.isdecimal() or not 0 < int(digits) < 65536:
            raise FieldRefused("--tcp looks like 192.168.1.20:502")
        port = int(digits)
    return BusAddress(
        code="laptop",
        framer=framer,
        host=host,
        port=port,
        tty=options.tty or "",
        baud=options.baud,
        timeout_s=DEFAULT_TIMEOUT_S[framer],
        quiet_s=DEFAULT_QUIET_S,
        parity=PARITIES[options.parity],
    )


@dataclass(slots=True)
class LocalBus:
    """A port of this machine."""

    address: BusAddress
    framer: str = field(init=False)

    def __post_init__(self) -> None:
        self.framer = self.address.framer

    async def look(self) -> None:
        """What kind of bus it is was said."""

    def expected_s(self, kind: str, argument: dict[str, Any]) -> float:
        """Return about how long it takes when nobody answers."""
        return survey.estimate_s(kind, argument, framer=self.framer, baud=self.address.baud)

    async def run(self, kind: str, argument: dict[str, Any], say: Say) -> dict[str, Any]:
        """Run a task here. Raises FieldRefused."""
        checked = check_argument(kind, argument, framer=self.framer)
        refuse_port(self.address)
        wires = Wires(self.address, BusLink(self.address))
        asking = asyncio.create_task(_ask_now_and_then(wires.link, checked)) if kind == "trace" else None
        last = Step(0, {})
        try:
            async for step in survey_bus.run(kind, checked, wires, lambda: time.time_ns() // 1_000_000):
                last = step
                say(step)
                if step.look_s:
                    await asyncio.sleep(step.look_s)
        except BusDown as error:
            raise FieldRefused(why_closed(self.address) or str(error)) from None
        except ModbusError as error:
            raise FieldRefused(f"no answer that makes sense: {error}") from None
        except asyncio.CancelledError:
            print("stopped; what was found so far:", file=sys.stderr)
        finally:
            if asking is not None:
                asking.cancel()
            wires.release()
            wires.link.close()
        return last.result


async def _ask_now_and_then(link: BusLink, argument: dict[str, Any]) -> None:
    """Give a trace something to hear: on a laptop nobody else asks."""
    unit = argument["unit"] or 1
    while True:
        with contextlib.suppress(ModbusError):
            await link.read(unit, Read(3, 0x1000, 7))
        await asyncio.sleep(POLL_S)


@dataclass(slots=True)
class SiteBus:
    """A bus of a site, asked through its gateway."""

    database_url: str
    site: str
    bus: str
    framer: str = ""

    async def look(self) -> None:
        """Ask the platform what kind of bus it is. Raises FieldRefused."""
        async with await psycopg.AsyncConnection.connect(self.database_url) as conn:
            found = await site_task_store.find_bus(conn, self.site, self.bus)
            if found is None:
                known = ", ".join(f"{one.site} {one.code}" for one in await site_task_store.list_buses(conn))
                raise FieldRefused(f"there is no bus {self.bus} at {self.site}; there are {known or 'none'}")
            self.framer = found.framer

    def expected_s(self, kind: str, argument: dict[str, Any]) -> float:
        """Return about how long it takes when nobody answers, at 9600 baud where the platform cannot know."""
        return survey.estimate_s(kind, argument, framer=self.framer)

    async def run(self, kind: str, argument: dict[str, Any], say: Say) -> dict[str, Any]:
        """Order a task and follow it; Ctrl-C stops it there too. Raises FieldRefused."""
        async with await psycopg.AsyncConnection.connect(self.database_url, autocommit=True) as conn:
            async with conn.transaction():
                task = await order_site_task.order_task(
                    conn,
                    site=self.site,
                    bus=self.bus,
                    kind=kind,
                    argument=argument,
                    idempotency_key=f"cli:{uuid4()}",
                    requested_by=f"cli:{getpass.getuser()}",
                    now=datetime.now(UTC),
                )
            try:
                return await self._follow(conn, task.id, say)
            except asyncio.CancelledError:
                async with conn.transaction():
                    await order_site_task.cancel_task(conn, task.id, now=datetime.now(UTC))
                print("stopped at the gateway too; what was found so far:", file=sys.stderr)
                return await self._last_word(conn, task.id)

    async def _last_word(self, conn: psycopg.AsyncConnection[Any], task_id: int) -> dict[str, Any]:
        """What a task that was called off had found: its gateway says so within a moment."""
        end = time.monotonic() + LAST_WORD_S
        while True:
            task = await site_task_store.find_task(conn, task_id)
            if task is None or not task.is_open or time.monotonic() > end:
                return task.result if task else {}
            await asyncio.sleep(LOOK_S)

    async def _follow(self, conn: psycopg.AsyncConnection[Any], task_id: int, say: Say) -> dict[str, Any]:
        began, warned = time.monotonic(), False
        while True:
            task = await site_task_store.find_task(conn, task_id)
            if task is None:
                raise FieldRefused("the task is gone")
            say(Step(task.progress, task.result))
            if task.state == "DONE":
                return task.result
            if not task.is_open:
                raise FieldRefused(f"{task.state}: {task.result.get('text') or 'the gateway did not do it'}")
            if task.state in {"CREATED", "SENT"} and not warned and time.monotonic() - began > SILENT_S:
                warned = True
                print(f"\nthe gateway of {self.site} has not answered yet; waiting on", file=sys.stderr)
            await asyncio.sleep(LOOK_S)


# -- the port itself ----------------------------------------------------------------------------------------


def list_ports() -> list[dict[str, str]]:
    """Return the serial ports of this machine: device, description, and what stops one from opening it."""
    from serial.tools import list_ports as found

    return [
        {
            "device": port.device,
            "description": port.description if port.description != "n/a" else "",
            "problem": forbidden(port.device) or "",
        }
        for port in sorted(found.comports(), key=lambda one: one.device)
    ]


def forbidden(tty: str) -> str | None:
    """Return why this user may not open a port, and which group may; None when it is allowed."""
    if os.access(tty, os.R_OK | os.W_OK):
        return None
    try:
        group = grp.getgrgid(Path(tty).stat().st_gid).gr_name
    except (OSError, KeyError):
        return f"no permission for {tty}"
    return (
        f"no permission for {tty}: it belongs to the group {group}."
        f" Run  sudo usermod -aG {group} {getpass.getuser()}  and sign in again"
    )


def refuse_port(address: BusAddress) -> None:
    """Raise FieldRefused for a serial port that is not there or not allowed, in words."""
    if address.framer != "rtu":
        return
    if not Path(address.tty).exists():
        raise FieldRefused(f"there is no {address.tty}; `raseed field ports` lists what is there")
    problem = forbidden(address.tty)
    if problem:
        raise FieldRefused(problem)


def why_closed(address: BusAddress) -> str | None:
    """Return why a bus does not open, in words; None when it would."""
    if address.framer != "rtu":
        return f"{address.host}:{address.port} does not take a connection: is it on, and is that its port?"
    from serial import Serial, SerialException

    try:
        Serial(address.tty, baudrate=address.baud, exclusive=True).close()
    except SerialException as error:
        if "lock" in str(error) or "busy" in str(error).lower():
            return (
                f"{address.tty} is in use by another program. A gateway of this site? Then ask it:"
                " --site SITE --bus BUS"
            )
        return f"{address.tty} does not open: {error}"
    except Exception as error:  # noqa: BLE001 - termios.error of a serial port is no OSError
        return f"{address.tty} does not take these settings: {error}"
    return None


# -- progress -----------------------------------------------------------------------------------------------


class Bar:
    """A progress bar on standard error, where a person looks on."""

    def __init__(self, label: str, *, quiet: bool) -> None:
        self._label = label
        self._shown = not quiet and sys.stderr.isatty()
        self._drawn = False

    def __call__(self, step: Step) -> None:
        """Draw how far it is, and what was found."""
        if not self._shown:
            return
        filled = BAR_WIDTH * step.progress // 100
        found = step.result.get("units_found")
        more = f"  {len(found)} found" if found is not None else ""
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        print(f"\r{self._label} [{bar}] {step.progress:3d} %{more}", end="", file=sys.stderr, flush=True)
        self._drawn = True

    def end(self) -> None:
        """Leave the line."""
        if self._drawn:
            print(file=sys.stderr)
