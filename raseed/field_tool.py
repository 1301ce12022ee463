"""`raseed field`: what an engineer does at a bus and at a meter, on a laptop alone or with the platform."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from raseed.settings import Settings

EXIT_REFUSED: Final = 1
WATCH_S: Final = 2.0
SHOWN_PROFILES: Final = 3
# So many units with one serial number are one meter.
SAME_METER: Final = 3


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `field` and what it does to the command line."""
    from raseed import field_meter
    from raseed.field_bus import add_target

    tool = commands.add_parser("field", help="scan a bus, name an unknown meter, install and commission it")
    what = tool.add_subparsers(dest="what", required=True, metavar="WHAT")
    ports = what.add_parser("ports", help="serial ports of this machine")
    ports.add_argument("--json", action="store_true")
    ports.set_defaults(run=_ports)
    scan = what.add_parser("scan", help="which units answer on a bus")
    scan.add_argument("--first", type=int, default=1, help="first unit (1)")
    scan.add_argument("--last", type=int, default=247, help="last unit (247)")
    scan.add_argument("--bauds", type=_numbers, default=[], help="also try these, e.g. 9600,19200")
    scan.add_argument("--parities", type=_letters, default=["N"], help="also try these, e.g. N,E")
    scan.add_argument("--timeout-ms", type=int, default=0, help="for each unit; by the line's speed")
    scan.set_defaults(run=_scan)
    probe = what.add_parser("probe", help="name the likely profile of a unit, with reasons")
    probe.add_argument("--profile", action="append", default=[], help="only try this one; may be given again")
    probe.set_defaults(run=_probe)
    registers = what.add_parser("registers", help="every register of a unit, by a profile")
    registers.add_argument("--watch", action="store_true", help="read on until Ctrl-C")
    registers.set_defaults(run=_registers)
    words = what.add_parser("words", help="one number in all four word orders, beside the display")
    words.add_argument("--register", default="counter", help="which number (counter)")
    words.add_argument("--display", help="what the meter's display shows, e.g. 1234.5")
    words.add_argument("--pick", choices=("ABCD", "CDAB", "BADC", "DCBA"), help="the order that is right")
    words.set_defaults(run=_words)
    trace = what.add_parser("trace", help="what goes over a bus, in plain words")
    trace.add_argument("--seconds", type=int, default=30, help="how long (30)")
    trace.add_argument("--unit", type=int, default=0, help="of one unit; on a laptop: the unit to ask (1)")
    trace.set_defaults(run=_trace)
    for command in (probe, registers, words):
        command.add_argument("--unit", type=int, required=True, help="unit number, 1 to 247")
    for command in (registers, words):
        command.add_argument(
            "--profile", required=True, help="by which profile; `raseed profile check` lists them"
        )
    for command in (scan, probe, registers, words, trace):
        add_target(command)
    field_meter.add_commands(what)


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",") if one]


def _letters(text: str) -> list[str]:
    return [one.strip().upper() for one in text.split(",") if one.strip()]


def carried_out(step: Callable[[], Awaitable[int]]) -> int:
    """Run a command; refusals are told in words, Ctrl-C ends a task and keeps what it found."""
    import psycopg

    from billing.errors import BillingError
    from meter_gateway.errors import MeterGatewayError
    from portal.field.install import InstallRefused
    from raseed.field_bus import FieldRefused
    from raseed.staff_word import NotStaff

    # What a library logs, this tool says in words.
    logging.getLogger("meter_gateway").setLevel(logging.ERROR)

    async def run() -> int:
        task = asyncio.ensure_future(step())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return EXIT_REFUSED

    try:
        return asyncio.run(run())
    except (FieldRefused, MeterGatewayError, BillingError, NotStaff) as error:
        print(f"refused: {error}", file=sys.stderr)
    except InstallRefused as error:
        from raseed.field_words import refusal_text

        print(f"refused: {refusal_text(error.reason)}", file=sys.stderr)
    except psycopg.OperationalError as error:
        print(f"the database cannot be reached: {type(error).__name__}", file=sys.stderr)
    return EXIT_REFUSED


def _ports(options: argparse.Namespace, _settings: Settings) -> int:
    from raseed.field_bus import list_ports

    ports = list_ports()
    if options.json:
        print(json.dumps(ports, ensure_ascii=False))
        return 0
    for port in ports:
        print(f"{port['device']:<20} {port['description']}")
        if port["problem"]:
            print(f"    {port['problem']}")
    if not ports:
        print("no serial port. Is the adapter plugged in? `dmesg | tail` says what the system thinks of it")
    return 0


def _task(
    options: argparse.Namespace,
    settings: Settings,
    kind: str,
    argument: dict[str, Any],
    show: Callable[[dict[str, Any]], int],
) -> int:
    from meter_gateway.site_task import check_argument
    from raseed.field_bus import Bar, target_of

    async def step() -> int:
        target = target_of(options, settings)
        await target.look()
        if not options.json:
            checked = check_argument(kind, argument, framer=target.framer)
            seconds = target.expected_s(kind, checked)
            if seconds > 5:
                print(
                    f"about {_duration(seconds)}; Ctrl-C stops it and keeps what was found", file=sys.stderr
                )
        bar = Bar(kind, quiet=options.json)
        try:
            result = await target.run(kind, argument, bar)
        finally:
            bar.end()
        if options.json:
            print(json.dumps(result, ensure_ascii=False))
            return 0
        return show(result)

    return carried_out(step)


def _duration(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60:02d} s"


def _scan(options: argparse.Namespace, settings: Settings) -> int:
    def show(result: dict[str, Any]) -> int:
        found = result.get("units_found", [])
        for one in found:
            line = f"  {one['baud']} 8{one['parity']}1" if one["baud"] else ""
            said = f"exception {one['code']}" if one["answer"] == "exception" else "answers"
            print(f"unit {one['unit']:>3}{line}  {said:<12} {one['ms']:>4} ms  {_who(one)}")
        for unit in result.get("garbled", []):
            print(
                f"unit {unit:>3}  something came that nobody can read: two meters with one number, or noise"
            )
        for line in result.get("skipped", []):
            print(f"the port does not take {line}")
        print(f"{len(found)} of {result.get('asked', 0)} asked answered")
        if len(found) > SAME_METER and len({one["serial"] for one in found}) == 1:
            print("all of them say the same: a TCP device that does not look at unit numbers. Use unit 1")
        return 0

    argument = {
        "first": options.first,
        "last": options.last,
        "bauds": options.bauds,
        "parities": options.parities if options.bauds or options.parities != ["N"] else [],
        "timeout_ms": options.timeout_ms,
    }
    return _task(options, settings, "scan", argument, show)


def _who(one: dict[str, Any]) -> str:
    return f"meter {one['serial']}" if one["serial"] else "no serial number of ours"


def _probe(options: argparse.Namespace, settings: Settings) -> int:
    def show(result: dict[str, Any]) -> int:
        if result.get("is_silent"):
            print(f"unit {options.unit} does not answer")
            return EXIT_REFUSED
        for score in result["profiles"][:SHOWN_PROFILES]:
            mark = "ruled out" if score["ruled_out"] else f"{score['score']} of 100"
            print(f"{score['profile']:<32} {mark:<10} {score['title']}")
            for reason in score["reasons"]:
                print(f"    {reason['points']:>+4}  {reason['text']}")
        print(f"serial number: {result['serial'] or 'none'}")
        print(
            f"likely: {result['likely'] or 'none stands out; compare a number with the display (raseed field words)'}"
        )
        return 0 if result["likely"] else EXIT_REFUSED

    return _task(options, settings, "probe", {"unit": options.unit, "profiles": options.profile}, show)


def _registers(options: argparse.Namespace, settings: Settings) -> int:
    def show(result: dict[str, Any]) -> int:
        for row in result["rows"]:
            words = " ".join(f"{word:04X}" for word in row["words"] or ())
            value = row["error"] or row["text"]
            print(f"0x{row['address']:04X}  {row['name']:<20} {value:<22} {words}")
        return 0

    argument = {"unit": options.unit, "profile": options.profile}
    if not options.watch:
        return _task(options, settings, "registers", argument, show)
    import time

    while True:  # ends by Ctrl-C, as a person asked for
        began = time.monotonic()
        if not options.json:
            print(f"\n{datetime.now(UTC):%H:%M:%S}Z")
        code = _task(options, settings, "registers", argument, show)
        if code:
            return code
        try:
            time.sleep(max(0.0, WATCH_S - (time.monotonic() - began)))
        except KeyboardInterrupt:
            return 0


def _words(options: argparse.Namespace, settings: Settings) -> int:
    def show(result: dict[str, Any]) -> int:
        print(f"{result['register']} of unit {result['unit']}, registers {_hex(result['words'])}:")
        for one in result["orders"]:
            mark = "  <- the profile's" if one["order"] == result["profile_order"] else ""
            print(f"  {one['order']}  {one['text']:>24}{mark}")
        return _judge(options, result)

    argument = {"unit": options.unit, "profile": options.profile, "register": options.register}
    return _task(options, settings, "words", argument, show)


def _hex(words: Sequence[int]) -> str:
    return " ".join(f"{word:04X}" for word in words)


def _judge(options: argparse.Namespace, result: dict[str, Any]) -> int:
    from meter_gateway.bus import word_order
    from meter_gateway.profile import load_profile
    from raseed.field_words import VERDICTS

    register = load_profile(result["profile"]).registers[result["register"]]
    if options.pick:
        verdict = word_order.judge_pick(register, result["words"], options.pick)
    else:
        typed = options.display
        if typed is None and sys.stdin.isatty():
            typed = input("What does the display show? ").strip()
        if not typed:
            print("compare with the display, then say --display NUMBER or --pick ORDER")
            return 0
        verdict = word_order.judge_display(register, result["words"], typed)
    print(VERDICTS[verdict.reason].format(order=verdict.order, profile=result["profile"]))
    return 0 if verdict.is_confirmed else EXIT_REFUSED


def _trace(options: argparse.Namespace, settings: Settings) -> int:
    def show(result: dict[str, Any]) -> int:
        for line in result.get("lines", []):
            at = datetime.fromtimestamp(line["at"] / 1000, UTC)
            print(f"{at:%H:%M:%S}.{line['at'] % 1000:03d}  {line['text']}")
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(result.get("counts", {}).items()))
        print(counts or "nothing was said on the bus")
        if result.get("dropped"):
            print(f"{result['dropped']} more lines are not shown")
        return 0

    return _task(options, settings, "trace", {"seconds": options.seconds, "unit": options.unit}, show)
