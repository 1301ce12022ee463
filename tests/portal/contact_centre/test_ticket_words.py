"""Every kind, state, channel, promise and refusal has words, in both languages."""

from __future__ import annotations

import ast
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest

from portal.contact_centre import ticket, ticket_words
from portal.contact_centre.clock import ClockKind, ClockMode
from portal.contact_centre.clock_store import ClockRow
from portal.contact_centre.ticket import Channel, TicketKind, TicketState
from portal.contact_centre.ticket_words import clock_words, due_words, refusal_words
from portal.outages import outage
from tests.portal.small_town import NOW, languages

HOUR = timedelta(hours=1)
PORTAL = Path(ticket.__file__).parent.parent


def clock(due, met=None):
    return ClockRow(1, 1, ClockKind.RESOLUTION, "oman", ClockMode.REAL, 60, NOW, due, met)


@pytest.mark.parametrize(
    ("words", "members"),
    [
        (ticket_words.KIND_WORDS, TicketKind),
        (ticket_words.CHANNEL_WORDS, Channel),
        (ticket_words.STATE_WORDS, TicketState),
        (ticket_words.STATE_TONES, TicketState),
        (ticket_words.CLOCK_WORDS, ClockKind),
    ],
)
def test_every_member_has_words(words, members):
    assert set(words) == set(members)


def reasons_raised():
    """Every reason that the room's own modules give to a refusal."""
    for path in chain((PORTAL / "contact_centre").glob("*.py"), (PORTAL / "outages").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "TicketRefused",
                "OutageRefused",
            }:
                yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))
            if (
                isinstance(node, ast.keyword)
                and node.arg == "empty_reason"
                and isinstance(node.value, ast.Constant)
            ):
                yield node.value.value
    yield from (value for value in ticket.TABLE.values() if isinstance(value, str))
    yield from (value for value in outage.TABLE.values() if not isinstance(value, outage.OutageState))


def test_every_refusal_has_words_of_its_own_and_no_words_are_left_over():
    assert set(reasons_raised()) == set(ticket_words.REFUSAL_WORDS)


@pytest.mark.parametrize("code", ["ar", "en"])
def test_a_reason_without_words_is_still_a_sentence(code):
    assert refusal_words("brand_new", languages()[code])


@pytest.mark.parametrize(
    ("row", "tone", "begin"),
    [
        (clock(NOW + HOUR), "info", "due"),
        (clock(NOW - HOUR), "bad", "overdue"),
        (clock(NOW, NOW - HOUR), "ok", "kept"),
        (clock(NOW - HOUR, NOW), "bad", "late"),
    ],
)
def test_a_promise_in_words(row, tone, begin):
    words = clock_words(row, NOW, languages()["en"])
    assert (words.label, words.tone) == ("Resolved", tone)
    assert words.text.startswith(begin)


@pytest.mark.parametrize(
    ("due", "resolved", "tone", "text"),
    [
        (NOW + 3 * HOUR, None, "info", "Due in 3 hours"),
        (NOW - 3 * HOUR, None, "bad", "Overdue: was due 3 hours ago"),
        (NOW, NOW - HOUR, "ok", "In time"),
        (NOW - HOUR, NOW, "bad", "Late"),
    ],
)
def test_a_promise_in_a_list(due, resolved, tone, text):
    words = due_words(due, resolved, NOW, languages()["en"])
    assert (words.tone, words.text) == (tone, text)
