"""`raseed field commission`: the checklist of a meter at the wall, worked through and told line by line."""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from raseed.settings import Settings

if TYPE_CHECKING:
    from portal.contact_centre.desk_store import DeskMeter
    from portal.field.field_store import FieldCommand
    from raseed.field_meter import Conn

LOOK_S: Final = 0.3
# A gateway hears of a new meter within seconds, polls it, and an answer takes another second or two.
LINK_S: Final = 30.0
KEY_S: Final = 60.0
ANSWER_S: Final = 45.0
FINAL: Final = frozenset({"VERIFIED", "REJECTED", "EXPIRED", "UNKNOWN"})
BY_HAND: Final = ("wiring", "seal")


def add_command(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `commission`."""
    command = what.add_parser(
        "commission", help="prove an installed meter, to a test token accepted (DATABASE_URL)"
    )
    command.add_argument("drn")
    command.add_argument("--display", help="what its display shows now, kWh or m3")
    command.add_argument(
        "--done", action="append", default=[], choices=BY_HAND, help="what you have checked by hand"
    )
    command.add_argument(
        "--exercise-relay", action="store_true", help="open and close it; needs --consent-by"
    )
    command.add_argument("--consent-by", default="", metavar="NAME", help="who of the customers allowed it")
    command.add_argument(
        "--consent-method", choices=("signature", "in_person", "phone", "message"), default="in_person"
    )
    command.add_argument("--as", dest="person", required=True, metavar="NAME", help="staff name")
    command.set_defaults(run=_commission)


@dataclass(slots=True)
class _Work:
    conn: Conn
    options: argparse.Namespace
    meter: DeskMeter
    login_id: int
    actor: str
    key: str

    async def refresh(self) -> DeskMeter:
        self.meter = await _get_meter(self.conn, self.meter.drn)
        return self.meter


async def _get_meter(conn: Conn, drn: str) -> DeskMeter:
    from portal.contact_centre import desk_store
    from portal.field.install import InstallRefused

    meter = await desk_store.find_meter(conn, drn)
    if meter is None:
        raise InstallRefused("number_unknown")
    return meter


def _commission(options: argparse.Namespace, settings: Settings) -> int:
    from raseed.field_tool import carried_out

    async def step() -> int:
        from portal import login_store
        from portal.field.install import InstallRefused, check_number
        from raseed.field_meter import ask_engineer, connect

        async with await connect(settings) as conn:
            await conn.set_autocommit(
                True
            )  # it waits for the meter between its steps: each is its own transaction
            person = await ask_engineer(conn, options.person)
            login = await login_store.find_staff(conn, person.name)
            meter = await _get_meter(conn, check_number(options.drn))
            if meter.installed_at is None:
                raise InstallRefused("not_installed")
            assert login is not None  # noqa: S101 - who just gave its password
            work = _Work(conn, options, meter, login.id, f"staff:{person.name}", uuid4().hex[:16])
            return await _work_through(work)

    return carried_out(step)


async def _work_through(work: _Work) -> int:
    from portal.field.gather_checklist import NotComplete, finish

    await _record_by_hand(work)
    if work.meter.link != "keypad":
        await _check_link(work)
        await _read(work)
    await _record_display(work)
    await _wait_for_key(work)
    await _test(work)
    if work.options.exercise_relay:
        await _exercise(work)
    await work.refresh()
    now = datetime.now(UTC)
    try:
        async with work.conn.transaction():
            done = await finish(work.conn, work.meter, login_id=work.login_id, now=now)
    except NotComplete:
        await _tell_open(work)
        return 1
    print(f"commissioned: certificate {done.id} of {done.completed_at:%Y-%m-%d %H:%M}Z")
    return 0


async def _tell_open(work: _Work) -> None:
    from portal.field import commissioning_store
    from portal.field.checklist import build_checklist
    from portal.field.gather_checklist import gather_facts

    place = await commissioning_store.find_place(work.conn, work.meter.meter_id)
    for item in build_checklist(await gather_facts(work.conn, work.meter, place)):
        needed = "" if item.required else "  (not required)"
        print(f"  {item.mark.value:<10} {item.code}{'  ' + item.reason if item.reason else ''}{needed}")
    print("not commissioned yet: do what is open and run it again")


async def _draft(work: _Work, kind: str, **fields: str) -> str:
    from portal.field.take_draft import Draft, DraftRefused, take_draft

    now = datetime.now(UTC)
    draft = Draft(key=uuid4().hex, kind=kind, drn=work.meter.drn, made_at=now, fields=fields)
    try:
        async with work.conn.transaction():
            answer = await take_draft(work.conn, draft, login_id=work.login_id, actor=work.actor, now=now)
    except DraftRefused as refused:
        return refused.reason
    return answer.word


async def _record_by_hand(work: _Work) -> None:
    for item in work.options.done:
        word = await _draft(work, "entry", item=item, outcome="done")
        print(f"{item:<12} {'checked' if word == 'noted' else word}")


async def _check_link(work: _Work) -> None:
    end = time.monotonic() + LINK_S
    while not _answers(work.meter):
        if time.monotonic() > end:
            print("link         FAILED: the meter does not answer")
            return
        await asyncio.sleep(LOOK_S)
        await work.refresh()
    print("link         answers")


def _answers(meter: DeskMeter) -> bool:
    seen, hung = meter.last_seen_at, meter.installed_at
    return meter.link_up and seen is not None and hung is not None and seen >= hung


async def _answer(work: _Work, command_id: int) -> FieldCommand | None:
    from portal.field import field_store

    end = time.monotonic() + ANSWER_S
    while time.monotonic() < end:
        command = await field_store.find_command(work.conn, command_id)
        if command is not None and command.state in FINAL:
            return command
        await asyncio.sleep(LOOK_S)
    return None


async def _read(work: _Work) -> None:
    """Read everything now: identity, clock and relay as the meter itself says."""
    from portal.field import install
    from portal.field.commission import RELAY_WORDS, clock_drift, is_clock_right

    now = datetime.now(UTC)
    async with work.conn.transaction():
        command_id = await install.read_now(
            work.conn, meter_id=work.meter.meter_id, key=work.key, actor=work.actor, now=now
        )
    command = await _answer(work, command_id)
    if command is None or command.state != "VERIFIED":
        print(f"read         FAILED: {command.state if command else 'no answer'}")
        return
    registers: dict[str, Any] = command.result.get("registers") or {}
    same = registers.get("serial") == work.meter.drn
    print(f"identity     {'matches' if same else 'FAILED: it says ' + str(registers.get('serial'))}")
    drift = clock_drift(registers, datetime.now(UTC))
    if drift is not None:
        word = "right" if is_clock_right(drift) else "FAILED: set it"
        print(f"clock        {word}, {drift.total_seconds():+.0f} s")
    relay = command.result.get("relay")
    print(f"relay        {RELAY_WORDS.get(relay, 'not told') if isinstance(relay, int) else 'not told'}")


async def _record_display(work: _Work) -> None:
    if work.options.display is None:
        return
    await work.refresh()
    word = await _draft(work, "reading", display=work.options.display)
    print(f"display      {'agrees with the register' if word == 'noted' else 'FAILED: ' + word}")


async def _wait_for_key(work: _Work) -> None:
    """Wait until the worker has brought the meter its own key and the meter has proven it."""
    from billing import key_change_store

    end = time.monotonic() + KEY_S
    while change := await key_change_store.find_open_change(work.conn, work.meter.meter_id):
        if time.monotonic() > end or work.meter.link == "keypad":
            print(f"key          open: its change is {change.state} (raseed keys progress)")
            return
        await asyncio.sleep(LOOK_S)
    print("key          its own, proven")


async def _test(work: _Work) -> None:
    from portal.field import install
    from token_engine.token_text import group_digits

    async with work.conn.transaction():
        made = await install.send_test_token(
            work.conn, meter_id=work.meter.meter_id, key=work.key, actor=work.actor, now=datetime.now(UTC)
        )
    if made.command_id is None:
        print(f"test token   type it: {group_digits(made.digits, ' ')}")
        word = await _draft(work, "entry", item="test_token", outcome="done") if _accepted() else "open"
        print(f"test token   {'accepted' if word == 'noted' else word}")
        return
    command = await _answer(work, made.command_id)
    state = command.state if command else "no answer"
    said = str(command.result.get("result", "")) if command else ""
    print(f"test token   {'accepted' if state == 'VERIFIED' else f'FAILED: {state} {said}'}")


def _accepted() -> bool:
    import sys

    return sys.stdin.isatty() and input("Did the meter accept it? [y/N] ").strip().lower() == "y"


async def _exercise(work: _Work) -> None:
    """Open and close the relay; refusals come from the rules, not from here."""
    from portal.field.commission import RELAY_WORDS, exercise_relay

    if work.options.consent_by:
        word = await _draft(
            work, "consent", given_by=work.options.consent_by, method=work.options.consent_method
        )
        print(f"consent      {'recorded, ' + work.options.consent_by if word == 'consent_kept' else word}")
    for step in ("open", "close"):
        await work.refresh()
        async with work.conn.transaction():
            command_id = await exercise_relay(
                work.conn,
                meter=work.meter,
                step=step,
                key=work.key,
                actor=work.actor,
                now=datetime.now(UTC),
            )
        command = await _answer(work, command_id)
        relay = command.result.get("relay") if command else None
        word = RELAY_WORDS.get(relay, "state not told") if isinstance(relay, int) else "state not told"
        print(f"relay {step:<6} {command.state if command else 'no answer'}: {word}")
    print("             a closed relay waits for the button on the meter")
