"""`raseed keys`: plans to change meters' keys, engineering requests, and the progress of both."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg

from raseed.settings import Settings
from raseed.staff_word import Staff, ask_staff

Conn = psycopg.AsyncConnection[Any]
SHOWN_METERS = 10
REST_LIMIT = 1_000  # what a person reads; the count above it is complete


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `keys` and what it does to the command line."""
    from raseed import key_custody

    keys = commands.add_parser("keys", help="change meters' keys, engineering tokens, the vault's keys")
    what = keys.add_subparsers(dest="what", required=True, metavar="WHAT")
    _add_plan(what)
    for name, text, run in (
        ("approve", "sign what another person asked for (a plan or an engineering request)", _approve),
        ("refuse", "say no to it", _refuse),
    ):
        command = what.add_parser(name, help=text)
        command.add_argument("id", type=UUID)
        command.add_argument("--as", dest="person", required=True, metavar="NAME", help="staff name")
        command.add_argument("--note", default="")
        command.set_defaults(run=run)
    progress = what.add_parser("progress", help="how far a plan is; without an id the newest plans")
    progress.add_argument("id", type=UUID, nargs="?")
    progress.set_defaults(run=_progress)
    rest = what.add_parser("rest", help="the meters of a plan that have not proven their new key")
    rest.add_argument("id", type=UUID)
    rest.set_defaults(run=_rest)
    for name, text in (
        ("retry", "send a refused or silent change's tokens once more"),
        ("confirm", "take a person's word that a meter has its new key (keypad meters cannot say)"),
        ("withdraw", "leave a meter its current key"),
    ):
        command = what.add_parser(name, help=text)
        command.add_argument("drn", help="meter number")
        command.add_argument("--as", dest="person", required=True, metavar="NAME", help="staff name")
        command.add_argument("--reason", required=True)
        command.set_defaults(run=_one_change)
    _add_request(what)
    key_custody.add_commands(what)


def _add_plan(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = what.add_parser("plan", help="plan a change of many meters' keys; --dry-run only shows it")
    for option, kind, text in (
        ("sgc", str, "supply group"),
        ("krn", int, "key revision"),
        ("ti", str, "tariff index, two digits"),
        ("kt", int, "key type"),
        ("base-date", int, "base date, a year"),
    ):
        plan.add_argument(f"--{option}", type=kind, help=f"meters with this {text}")
        plan.add_argument(f"--to-{option}", type=kind, help=f"new {text}")
    plan.add_argument("--to-ken", type=int, help="new key expiry number")
    plan.add_argument("--drn", action="append", help="only this meter; may be given again")
    plan.add_argument("--reason", default="")
    plan.add_argument("--as", dest="person", metavar="NAME", help="staff name")
    plan.add_argument("--key", default="", help="idempotency key: the same one again is the same plan")
    plan.add_argument("--dry-run", action="store_true")
    plan.set_defaults(run=_plan)


def _add_request(what: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    request = what.add_parser("request", help="ask for an engineering token for one meter")
    request.add_argument("drn", help="meter number")
    request.add_argument("kind", help="power_limit, clear_credit, clear_tamper, …; a wrong one lists all")
    request.add_argument(
        "--value", type=lambda text: int(text, 0), default=0, help="watts, register, rate, control"
    )
    request.add_argument("--reason", required=True)
    request.add_argument("--as", dest="person", required=True, metavar="NAME", help="staff name")
    request.add_argument("--key", default="", help="idempotency key")
    request.set_defaults(run=_request)


def connected(settings: Settings, step: Callable[[Conn], Awaitable[int]]) -> int:
    """Do one step in one transaction; billing's refusals are told, and change nothing."""
    from billing.errors import BillingError
    from raseed.staff_word import NotStaff

    async def run() -> int:
        async with await psycopg.AsyncConnection.connect(settings.need("database_url")) as conn:
            return await step(conn)

    try:
        return asyncio.run(run())
    except (BillingError, NotStaff) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except psycopg.OperationalError as error:
        print(f"the database cannot be reached: {type(error).__name__}", file=sys.stderr)
        return 1


_COLUMNS = ("sgc", "krn", "ti", "kt", "base_date", "ken", "drn")


def _given(options: argparse.Namespace, prefix: str) -> dict[str, Any]:
    found = {name: getattr(options, f"{prefix}{name}", None) for name in _COLUMNS}
    return {name: value for name, value in found.items() if value is not None}


def _plan(options: argparse.Namespace, settings: Settings) -> int:
    from billing import plan_keys

    scope, target = _given(options, ""), _given(options, "to_")
    if not options.dry_run and not (options.person and options.reason):
        raise ValueError("a plan needs --as NAME and --reason; or say --dry-run")

    async def step(conn: Conn) -> int:
        now = datetime.now(UTC)
        preview = await plan_keys.preview_plan(conn, scope=scope, target=target, now=now)
        missing = _tell_preview(preview, settings)
        if options.dry_run:
            return 1 if missing else 0
        if missing:
            print("refused: the vault cannot make these keys", file=sys.stderr)
            return 1
        person = await ask_staff(conn, options.person)
        plan = await plan_keys.make_plan(
            conn,
            idempotency_key=options.key or f"plan:{uuid4()}",
            scope=scope,
            target=target,
            reason=options.reason,
            requested_by=person.name,
            role=person.role,
            now=now,
        )
        print(f"plan {plan.id} of {plan.meters} meters waits for a second person:")
        print(f"  raseed keys approve {plan.id} --as NAME")
        return 0

    return connected(settings, step)


def _tell_preview(preview: Any, settings: Settings) -> int:
    """Print what a plan would do; gives how many keys the vault does not hold."""
    from portal.open_vault import open_vault
    from token_engine.errors import VaultRefused

    print(f"{len(preview.meters)} meters would change")
    for rule, count in sorted(preview.rules.items()):
        print(f"  {count} would not: {rule}")
    for meter in preview.meters[:SHOWN_METERS]:
        print(f"  {meter.identity.drn}  {_words(meter.old)} → {_words(meter.new)}")
    if len(preview.meters) > SHOWN_METERS:
        print(f"  … and {len(preview.meters) - SHOWN_METERS} more")
    if not settings.vault_file:
        print("  the vault was not asked: RASEED_VAULT_FILE is not set")
        return 0
    vault, missing = open_vault(settings.vault_file, settings.wrapping_key_file), 0
    wanted = {
        (key.sgc, key.krn, key.kt, key.base_date): meter.identity.identity_of(key)
        for meter in preview.meters
        for key in (meter.old, meter.new)
    }
    for (sgc, krn, kt, base_date), identity in sorted(wanted.items()):
        try:
            value = vault.check_value(identity)
        except VaultRefused:
            value, missing = "MISSING", missing + 1
        print(f"  vending key {sgc} revision {krn} KT {kt} base {base_date}: check value {value}")
    return missing


def _words(key: Any) -> str:
    return f"{key.sgc}/{key.krn} TI {key.ti} KT {key.kt} KEN {key.ken} base {key.base_date}"


def _approve(options: argparse.Namespace, settings: Settings) -> int:
    return _decide(options, settings, "approved")


def _refuse(options: argparse.Namespace, settings: Settings) -> int:
    return _decide(options, settings, "refused")


def _decide(options: argparse.Namespace, settings: Settings, verdict: str) -> int:
    from billing import engineering_store, key_plan_store, plan_keys, request_engineering

    async def step(conn: Conn) -> int:
        now = datetime.now(UTC)
        plan = await key_plan_store.find_plan(conn, options.id)
        request = await engineering_store.find_request(conn, options.id)
        if plan is None and request is None:
            print(f"refused: {options.id} is neither a plan nor a request", file=sys.stderr)
            return 1
        if plan is not None:
            print(
                f"plan of {plan.requested_by}: {plan.scope} → {plan.target}, {plan.meters} meters: {plan.reason}"
            )
        elif request is not None:
            print(f"request of {request.requested_by}: {request.kind} {request.value}: {request.reason}")
        person = await ask_staff(conn, options.person)
        words: dict[str, Any] = {
            "verdict": verdict,
            "decided_by": person.name,
            "role": person.role,
            "note": options.note,
            "now": now,
        }
        if plan is not None:
            await plan_keys.decide_plan(conn, plan_id=options.id, **words)
        else:
            await request_engineering.decide_request(conn, request_id=options.id, **words)
        print(f"{verdict} by {person.name}")
        return 0

    return connected(settings, step)


def _progress(options: argparse.Namespace, settings: Settings) -> int:
    from billing import key_plan_store

    async def step(conn: Conn) -> int:
        plans = (
            [await key_plan_store.get_plan(conn, options.id)]
            if options.id
            else await key_plan_store.list_plans(conn, limit=SHOWN_METERS)
        )
        for plan in plans:
            counts = await key_plan_store.get_progress(conn, plan.id)
            done = counts.get("PROVEN", 0)
            verdict = f"{plan.verdict} by {plan.decided_by}" if plan.verdict else "waits for a second person"
            print(f"{plan.id}  {plan.scope} → {plan.target}  ({verdict})")
            states = ", ".join(f"{state} {count}" for state, count in sorted(counts.items()))
            print(f"  {done} of {plan.meters} proven: {states}")
        return 0

    return connected(settings, step)


def _rest(options: argparse.Namespace, settings: Settings) -> int:
    from billing import key_plan_store

    async def step(conn: Conn) -> int:
        plan = await key_plan_store.get_plan(conn, options.id)
        counts = await key_plan_store.get_progress(conn, plan.id)
        for line in await key_plan_store.list_rest(conn, plan.id, limit=REST_LIMIT):
            since = f" since {line.since:%Y-%m-%d %H:%M}Z" if line.since else ""
            held = f", {line.held} tokens held back" if line.held else ""
            print(f"  {line.drn}  {line.link:<7} {line.state:<9} {line.detail}{since}{held}")
        print(f"{plan.meters - counts.get('PROVEN', 0)} of {plan.meters} left")
        return 0

    return connected(settings, step)


def _one_change(options: argparse.Namespace, settings: Settings) -> int:
    from billing import key_change_store
    from billing.engineering import APPROVERS
    from portal import change_keys

    steps = {
        "retry": change_keys.retry_change,
        "confirm": change_keys.confirm_change,
        "withdraw": change_keys.withdraw_change,
    }

    async def step(conn: Conn) -> int:
        change = await key_change_store.find_open_change(conn, await _meter_id(conn, options.drn))
        if change is None:
            print("refused: no key change of this meter is under way", file=sys.stderr)
            return 1
        person = await ask_staff(conn, options.person)
        if person.role not in APPROVERS:
            print(f"refused: a {person.role} may not decide this", file=sys.stderr)
            return 1
        state = await steps[options.what](
            conn, change.id, by=person.name, reason=options.reason, now=datetime.now(UTC)
        )
        print(f"the key change of {options.drn} is {state}")
        return 0

    return connected(settings, step)


def _request(options: argparse.Namespace, settings: Settings) -> int:
    from billing import request_engineering

    async def step(conn: Conn) -> int:
        meter_id = await _meter_id(conn, options.drn)
        person: Staff = await ask_staff(conn, options.person)
        request = await request_engineering.request_token(
            conn,
            idempotency_key=options.key or f"request:{uuid4()}",
            meter_id=meter_id,
            kind=options.kind,
            value=options.value,
            reason=options.reason,
            requested_by=person.name,
            role=person.role,
            now=datetime.now(UTC),
        )
        if request.state == "REQUESTED":
            print(f"request {request.id} waits for a second person:")
            print(f"  raseed keys approve {request.id} --as NAME")
        else:
            print(f"request {request.id} is {request.state}; the worker issues the token")
        return 0

    return connected(settings, step)


async def _meter_id(conn: Conn, drn: str) -> int:
    from billing.errors import NotFound

    cursor = await conn.execute("SELECT meter_id FROM meter_gateway.v_meter WHERE drn = %s", (drn,))
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("meter_not_found", f"no meter {drn}")
    return int(row[0])
