"""Words for what a gateway tells of a bus: lines of a trace, reasons of a probe, why a task failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from portal.i18n import Language, msg

# What a trace's line says in English (meter_gateway/bus/bus_trace.py) → the sentence to translate with its parts.
_LINES: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            r"asked unit (?P<unit>\d+) for (?P<count>\d+) [a-z\d ]+ from (?P<address>0x[0-9A-F]+)",
            msg("Asked unit %(unit)s for %(count)s registers from %(address)s."),
        ),
        (
            r"wrote (?P<count>\d+) registers? of unit (?P<unit>\d+) from (?P<address>0x[0-9A-F]+) .*",
            msg("Wrote %(count)s registers of unit %(unit)s from %(address)s; contents are not shown."),
        ),
        (r"sent (?P<bytes>\d+) bytes that are no Modbus", msg("Sent %(bytes)s bytes that are no Modbus.")),
        (r"unit (?P<unit>\d+) did not answer in time", msg("Unit %(unit)s did not answer in time.")),
        (
            r"(?P<bytes>\d+) bytes came that nobody asked for",
            msg("%(bytes)s bytes came that nobody asked for."),
        ),
        (
            r"an answer that cannot be read, (?P<bytes>\d+) bytes, (?P<ms>\d+) ms.*",
            msg("An answer came that cannot be read: %(bytes)s bytes after %(ms)s ms."),
        ),
        (
            r"unit (?P<other>\d+) answered though unit (?P<unit>\d+) was asked.*",
            msg("Unit %(other)s answered though unit %(unit)s was asked."),
        ),
        (
            r"unit (?P<unit>\d+) refused with exception (?P<code>\d+).*",
            msg("Unit %(unit)s refuses (exception %(code)s)."),
        ),
        (
            r"unit (?P<unit>\d+) answered with function .*",
            msg("Unit %(unit)s answered something else than it was asked for."),
        ),
        (
            r"unit (?P<unit>\d+) answered (?P<bytes>\d+) bytes of values instead of (?P<wanted>\d+).*",
            msg("Unit %(unit)s answered %(bytes)s bytes instead of %(wanted)s."),
        ),
        (
            r"answer of unit (?P<unit>\d+), (?P<bytes>\d+) bytes, (?P<ms>\d+) ms",
            msg("Unit %(unit)s answered: %(bytes)s bytes after %(ms)s ms."),
        ),
    )
)
_KINDS: Final = {
    "asked": msg("A question was sent."),
    "written": msg("Something was written to a meter; contents are not shown."),
    "answer": msg("A meter answered."),
    "exception": msg("A meter refused the question."),
    "silence": msg("Nobody answered in time."),
    "garbled": msg("Something came that cannot be read."),
    "wrong_unit": msg("Another meter than the one asked answered."),
}
KIND_WORDS: Final = {
    "asked": msg("Questions"),
    "written": msg("Writes"),
    "answer": msg("Answers that came"),
    "exception": msg("Refusals"),
    "silence": msg("Without an answer"),
    "garbled": msg("Unreadable"),
    "wrong_unit": msg("Wrong meter"),
}
TONES: Final = {"answer": "ok", "exception": "warn", "silence": "bad", "garbled": "bad", "wrong_unit": "bad"}
# Modbus Application Protocol 1.1b3, 7.
_EXCEPTIONS: Final = {
    "1": msg("it does not know this function"),
    "2": msg("it has no register at this address"),
    "3": msg("it does not take this count or value"),
    "4": msg("it failed while doing it"),
    "6": msg("it is busy"),
    "10": msg("the converter has no way to it"),
    "11": msg("nobody answers behind the converter"),
}
_REFUSES_BECAUSE: Final = msg("Unit %(unit)s refuses: %(why)s (exception %(code)s).")
_REASONS: Final = {
    "serial_is_drn": msg("Serial number %(value)s, its check digit is right."),
    "serial_text": msg("It tells a serial number: %(value)s."),
    "serial_empty": msg("The serial number is empty."),
    "plausible": msg("%(register)s holds %(value)s: such a meter can have that."),
    "implausible": msg("%(register)s holds %(value)s: no such meter has that."),
    "zero": msg("%(register)s is zero: that says little."),
    "no_sense": msg("%(register)s holds nothing that it could mean."),
    "refuses": msg("It refuses registers that this profile needs."),
}
_SIGNED: Final = {
    "credit_unit": (msg("Credit is counted in the right unit."), msg("Credit is counted in another unit.")),
    "read_limit": (
        msg("It answers as many registers at once as the profile asks for."),
        msg("It answers fewer registers at once than the profile asks for."),
    ),
}
_OTHER_REASON: Final = (msg("Something speaks for it."), msg("Something speaks against it."))
FAILED_WORDS: Final = {
    "bus_down": msg("The gateway cannot open this bus. Check the converter, its cable and its power."),
    "no_answer": msg("The meter did not answer. Check its power, the two wires and its unit number."),
    "restarted": msg("The gateway was restarted meanwhile. Start it again."),
}
OTHER_FAILURE: Final = msg("The gateway could not do it. Start it again, or look at the trace of the bus.")


def trace_words(line: Mapping[str, Any], language: Language) -> str:
    """A trace's line as a sentence in the reader's language."""
    text = str(line.get("text", ""))
    for pattern, words in _LINES:
        found = pattern.fullmatch(text)
        if found:
            parts = found.groupdict()
            why = _EXCEPTIONS.get(parts.get("code") or "")
            if why:
                return language._(_REFUSES_BECAUSE, why=language._(why), **parts)
            return language._(words, **parts)
    return language._(_KINDS.get(str(line.get("kind")), _KINDS["garbled"]))


def reason_words(reason: Mapping[str, Any], language: Language) -> str:
    """A probe's reason as a sentence in the reader's language."""
    code, speaks_for = str(reason.get("code")), int(reason.get("points", 0)) > 0
    if code in _REASONS:
        register = str(reason.get("register") or "–")
        # The text says the value as a display would: `voltage 239.2 V: what we think of it`.
        shown = str(reason.get("text", "")).removeprefix(f"{register} ").partition(":")[0]
        value = shown if code in ("plausible", "implausible") else reason.get("value") or 0
        return language._(_REASONS[code], value=value, register=register)
    return language._(_SIGNED.get(code, _OTHER_REASON)[0 if speaks_for else 1])


def failure_words(result: Mapping[str, Any], language: Language) -> str:
    """Why a task failed, and what to do."""
    return language._(FAILED_WORDS.get(str(result.get("reason")), OTHER_FAILURE))
