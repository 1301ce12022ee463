"""Every pair of state and event is decided, and what a ticket takes in is checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from portal.contact_centre import ticket
from portal.contact_centre.ticket import Move, TicketEvent, TicketRefused, TicketState

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.mark.parametrize(("state", "event"), list(product(TicketState, TicketEvent)))
def test_every_pair_is_decided(state, event):
    decided = ticket.TABLE[state, event]
    if isinstance(decided, Move):
        assert ticket.move(state, event) == decided
    else:
        with pytest.raises(TicketRefused) as caught:
            ticket.move(state, event)
        assert caught.value.reason == decided


def test_the_table_has_no_other_pair():
    assert set(ticket.TABLE) == set(product(TicketState, TicketEvent))


def test_only_the_customer_wakes_a_resolved_ticket():
    waking = [
        event
        for event in TicketEvent
        if isinstance(found := ticket.TABLE[TicketState.RESOLVED, event], Move) and found.reopens
    ]
    assert waking == [TicketEvent.CUSTOMER_MESSAGE]
    assert ticket.move(TicketState.RESOLVED, TicketEvent.CUSTOMER_MESSAGE).state is TicketState.ASSIGNED


def test_only_resolve_leads_to_resolved():
    for (state, event), decided in ticket.TABLE.items():
        if isinstance(decided, Move) and decided.state is TicketState.RESOLVED and state is not decided.state:
            assert event is TicketEvent.RESOLVE


def test_the_window_to_take_up_again():
    ticket.check_reopen(NOW - timedelta(days=14), NOW)
    with pytest.raises(TicketRefused, match="reopen_window_over"):
        ticket.check_reopen(NOW - timedelta(days=14, seconds=1), NOW)


@pytest.mark.parametrize(
    ("text", "reason"), [("  \r\n ", "reply_empty"), ("x" * 11, "too_long"), ("a\x00b", "not_text")]
)
def test_text_is_checked(text, reason):
    with pytest.raises(TicketRefused, match=reason):
        ticket.check_text(text, limit=10, empty_reason="reply_empty")
    assert ticket.check_text("  a\r\nb ", limit=10, empty_reason="reply_empty") == "a\nb"


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\nrest", "image/png"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"%PDF-" + bytes(ticket.MAX_ATTACHMENT_BYTES - 5), "application/pdf"),
    ],
)
def test_a_file_is_what_its_first_bytes_say(content, media_type):
    assert ticket.media_type_of(content) == media_type


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "file_empty"),
        (b"<svg onload=alert(1)>", "file_type"),
        (b"GIF89a", "file_type"),
        (b" %PDF-1.7", "file_type"),
        (b"%PDF-" + bytes(ticket.MAX_ATTACHMENT_BYTES), "file_too_big"),
    ],
)
def test_other_files_are_refused(content, reason):
    with pytest.raises(TicketRefused, match=reason):
        ticket.media_type_of(content)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd.png"),
        ("C:\\temp\\meter photo.PNG", "meter photo.png"),
        ("عداد.png", "عداد.png"),
        ('a"b\r\nSet-Cookie: x.png', "abSet-Cookie x.png"),
        ("", "file.png"),
        ("x" * 300, "x" * 100 + ".png"),
    ],
)
def test_a_file_name_is_only_a_name(name, safe):
    assert ticket.safe_file_name(name, "image/png") == safe
