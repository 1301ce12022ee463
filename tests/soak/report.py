"""A soak's result as a page of words and tables."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from tests.soak.house import VICTIMS
from tests.soak.memory import MAX_GROWTH, WARM_AFTER_S, WARM_UP_BYTES, has_grown
from tests.soak.run import Result

MIB = 1024 * 1024


def write_report(result: Result, now: datetime | None = None) -> str:
    """Markdown of counts, kills and memory."""
    size, found = result.size, result.found
    verdict = "**held**" if not result.faults else "**did not hold**"
    head = (
        f"{now or datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, broker {result.broker}, embedded "
        f"PostgreSQL with fsync, two ingest processes. The rule {verdict}."
    )
    rule = (
        "The rule: every reading that a meter made, by the simulator's own journal, is stored exactly once, and no "
        f"process's memory at the end is more than {MAX_GROWTH} times what it was at a third of the run. Made anew "
        f"by `make soak MINUTES={result.run_s / 60:.3g}`."
    )
    lines = [
        "# Soak",
        "",
        head,
        "",
        rule,
        "",
        "| the run | |",
        "|---|--:|",
        f"| length | {result.run_s / 60:.3g} min |",
        f"| MQTT meters, a reading of four channels every {size.telemetry_s:g} s | {size.meters} |",
        f"| Modbus TCP meters, polled every {size.poll_s:g} s | {size.modbus} |",
        f"| until the last receipt after the end | {result.drained_s:.0f} s |",
        "",
        "| readings | |",
        "|---|--:|",
        f"| messages that MQTT meters made | {result.messages} |",
        f"| readings in them | {found.made} |",
        f"| of these missing in the platform | {found.missing} |",
        f"| stored with another value | {found.wrong} |",
        f"| stored, of all meters | {found.stored} |",
        f"| stored, and never made or never on the wire | {found.nobodys} |",
        f"| answers of Modbus meters that had to be told | {found.answers} |",
        f"| without a stored reading within the gateway's promise (30 s) | {found.uncovered} |",
        f"| contradictions, parked messages | {found.conflicts}, {found.dead_letters} |",
        f"| messages without a receipt | {result.unreceipted} |",
        "",
        "A key (meter, channel, instant) can be stored only once; a value under it that differs is counted above.",
        "",
        "| SIGKILL of | times |",
        "|---|--:|",
        *(f"| {name} | {result.kills[name]} |" for name in VICTIMS),
        "",
        *_memory(result),
    ]
    if result.faults:
        lines += ["", "## What did not hold", "", *(f"- {fault}" for fault in result.faults)]
    return "\n".join(lines) + "\n"


def _memory(result: Result) -> list[str]:
    lines = [
        "| memory (PSS, MiB) | at a third | at the end | ratio | shared page cache | |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, third in result.third.items():
        end = result.end.get(name)
        if end is None:
            lines.append(f"| {name} | {third.own / MIB:.1f} | gone | | | too much |")
            continue
        said = "too much" if has_grown(third, end, result.run_s) else "held"
        lines.append(
            f"| {name} | {third.own / MIB:.1f} | {end.own / MIB:.1f} | {end.own / third.own:.2f} "
            f"| {third.shared / MIB:.1f} → {end.shared / MIB:.1f} | {said} |"
        )
    lines += [
        "",
        "PostgreSQL's page cache fills up to its setting (32 MB) and no further, so it stands apart.",
    ]
    if result.run_s < WARM_AFTER_S:
        lines += [
            "",
            f"In a run under {WARM_AFTER_S / 60:g} minutes {WARM_UP_BYTES // MIB} MiB of warming up are let pass.",
        ]
    return lines
