"""The timeline in words: what staff may read, what a subscriber may see, and that it joins every room."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal import message_store, timeline_store
from portal.contact_centre import answer_ticket
from portal.contact_centre.ticket import TicketKind
from portal.outages import watch
from portal.outages.infer import Rules
from portal.timeline import TimelineRow, describe, is_public, mask_body, mask_token
from tests.portal.contact_centre.test_open_ticket import opened
from tests.portal.small_town import NOW, build, languages
from token_engine.token_result import TokenResult

TOKEN = "12345678901234567890"
MINUTE = timedelta(minutes=1)
FUTURE = NOW + timedelta(days=2)


def row(source, kind, **detail):
    return TimelineRow(NOW, source, kind, detail.pop("public", None), 1, detail, "04000000018", "electricity")


def said(found, *, public=False, code="en"):
    (line,) = describe([found], languages()[code], public=public, desk=not public)
    return line


def test_a_token_shows_its_ends_only():
    assert mask_token(TOKEN).replace("\u00a0", " ") == "1234 •••• •••• •••• 7890"
    line = said(row("token", "credit", digits=TOKEN, units_tenths=125, vend_id="v"))
    assert "5678" not in line.text
    assert "12.5" in line.text


@pytest.mark.parametrize("separator", ["", " ", "-", "\u00a0", " - ", "\u200e \u200e", "\u2066"])
@pytest.mark.parametrize("zero", ["0", "٠", "۰"])
def test_no_sms_shows_a_token_to_staff(separator, zero):
    groups = [TOKEN[n : n + 4] for n in range(0, 20, 4)]
    shown = separator.join(groups).translate({ord(str(n)): chr(ord(zero) + n) for n in range(10)})
    body = f"Token for meter 04000000018: 12.5 kWh\n{shown}\nPaid 5.000 OMR. Receipt 17."
    masked = mask_body("token", body)
    middle = TOKEN[8:12].translate({ord(str(n)): chr(ord(zero) + n) for n in range(10)})
    assert middle not in masked.replace("\u00a0", "")
    assert "5.000" in masked
    assert "04000000018" in masked  # a meter number is no secret


@settings(max_examples=60)
@given(st.text(alphabet="0123456789 -\u00a0", min_size=0, max_size=60))
def test_masking_leaves_no_sixteen_digits_in_a_row(text):
    longest = run = 0
    for char in mask_body("ticket", text):
        run = run + 1 if char.isdigit() else run if char in " -\u00a0" else 0
        longest = max(longest, run)
    assert longest < 20


def test_a_sign_in_code_is_hidden_from_everyone():
    assert "4821" not in mask_body("one_time_code", "Your code is 482193. Valid 5 minutes.")


@pytest.mark.parametrize(
    ("found", "public"),
    [
        (row("payment", "CONFIRMED", amount_minor=5000), True),
        (row("token", "test", digits=TOKEN, units_tenths=None), False),
        (row("command", "VERIFIED", command="token", result={}), True),
        (row("command", "SENT", command="token", result={}), False),
        (row("command", "VERIFIED", command="read_now", result={}), False),
        (row("meter", "raseed.link_down"), False),
        (row("meter", "raseed.token", result="ACCEPT"), True),
        (row("meter", "something.new"), False),
        (row("ticket", "note", reference="R26-000001-A", public=False), False),
        (row("ticket", "reply", reference="R26-000001-A", public=True), True),
        (row("vend", "REQUESTED"), False),
    ],
)
def test_what_the_subscriber_sees(found, public):
    assert is_public(found) is public


@pytest.mark.parametrize("code", ["ar", "en"])
@pytest.mark.parametrize("result", list(TokenResult))
def test_every_answer_of_a_meter_has_words(code, result):
    line = said(row("meter", "raseed.token", result=result.name, carrier="keypad", credit=12_500), code=code)
    assert line.title
    assert result.name not in line.title
    assert (line.tone == "ok") == result.is_accepted


def test_an_answer_that_nobody_understands_is_no_refusal():
    line = said(row("meter", "raseed.token", result="UNKNOWN", carrier="keypad", credit=None))
    assert "refused" not in line.title


@pytest.mark.parametrize(
    ("relay", "reason", "tone"),
    [(0, "no_credit", "bad"), (1, "none", "ok"), (2, "order", "warn"), (9, "x", "info")],
)
def test_every_move_of_the_switch_has_words(relay, reason, tone):
    line = said(row("meter", "raseed.relay", relay=relay, reason=reason))
    assert (line.tone, bool(line.title)) == (tone, True)


@pytest.mark.parametrize(
    ("kind", "began", "ended", "public"),
    [
        ("3.12.0.257", "Tamper alarm: the cover was opened", "The tamper alarm was cleared", True),
        ("raseed.clock_drift", "The meter's clock is wrong", "The meter's clock is right again", False),
        (
            "raseed.leak",
            "Water never stops: there may be a leak",
            "The water stopped: the leak alarm is over",
            True,
        ),
        ("3.26.93.219", "Energy or water flows back", "Nothing flows back any more", False),
        (
            "raseed.no_meaning",
            "The meter shows values that its profile does not know",
            "All values of the meter have a meaning again",
            False,
        ),
    ],
)
def test_what_begins_and_ends_says_which(kind, began, ended, public):
    lines = [said(row("meter", kind, active=active)) for active in (True, False)]
    assert [line.title for line in lines] == [began, ended]
    assert lines[1].tone == "ok"
    assert is_public(row("meter", kind, active=True)) is public


@pytest.mark.parametrize(
    "kind", ["raseed.counter_suspect", "raseed.counter_believed", "raseed.counter_rebased"]
)
def test_doubts_about_a_counter_are_ours(kind):
    assert said(row("meter", kind)).title.startswith("The counter")
    assert not is_public(row("meter", kind))


def test_words_of_strangers_are_text_and_never_markup():
    found = row(
        "ticket", "reply", reference="R26-000001-A", subject="x", text="<b>hi</b>", actor="<i>", public=True
    )
    assert "<b>" not in said(found).text
    assert "&lt;b&gt;hi" in said(found).text
    assert "&lt;i&gt;" in said(found).text


def test_each_part_keeps_its_own_direction():
    text = said(row("token", "credit", digits=TOKEN, units_tenths=125, vend_id="v"), code="ar").text
    assert '<bdi dir="ltr">1234' in text


def test_an_unknown_row_is_shown_and_never_an_error():
    assert said(row("meter", "x.y")).title == "meter x.y"
    assert said(row("command", "ODD", command="dance", result=None)).title == ": ODD"


def test_links_lead_each_reader_to_their_own_page():
    found = row("ticket", "opened", reference="R26-000001-A", subject="Dark", text="x", public=True)
    assert said(found).href == "/desk/tickets/R26-000001-A"
    assert said(replace(found, is_public=True), public=True).href == "/my/tickets/R26-000001-A"
    outage = row("outage", "out", outage_id=3, node_en="Feeder", node_ar="مغذي")
    assert (said(outage).href, said(outage, public=True).href) == ("/desk/outages/3", "")
    assert said(outage, code="ar").text == "<bdi>مغذي</bdi>"


@pytest.fixture
async def busy(conn):
    """A customer to whom something of every room has happened."""
    town = await build(conn)
    meter, customer = town.meters["a1"], town.customers["a1"]
    ids = {"meter": meter, "customer": customer, "now": NOW}
    await conn.execute(
        """INSERT INTO billing.tariff (code, version, commodity, valid_from, name_en, name_ar, blocks,
             vat_basis_points, minimum_minor, maximum_minor)
           VALUES ('home-electricity', 1, 'electricity', '2025-01-01', 'Home', 'منازل', '[]', 500, 500, 100000)"""
    )
    await conn.execute(
        """WITH q AS (
             INSERT INTO billing.quote (customer_agreement_id, meter_id, tariff_id, amount_minor, arrears_minor,
               vat_minor, energy_minor, change_minor, units_tenths, steps, expires_at)
             SELECT a.customer_agreement_id, a.meter_id, t.id, 5000, 0, 250, 4750, 0, 2500, '[]', %(now)s
               FROM billing.v_agreement a, billing.tariff t WHERE a.meter_id = %(meter)s RETURNING id),
           p AS (INSERT INTO billing.payment (quote_id, idempotency_key, provider, amount_minor, state, created_at,
               settled_at) SELECT id, 'pay-1', 'sandbox', 5000, 'CONFIRMED', %(now)s - interval '9 minutes',
               %(now)s - interval '8 minutes' FROM q RETURNING id, quote_id),
           v AS (INSERT INTO billing.vend (quote_id, payment_id, meter_id, state, base_date, tid)
               SELECT quote_id, id, %(meter)s, 'VENDED', 2014, 7 FROM p RETURNING id),
           s AS (INSERT INTO billing.vend_step (vend_id, state, occurred_at)
               SELECT id, 'VENDED', %(now)s - interval '7 minutes' FROM v)
           INSERT INTO billing.token (vend_id, meter_id, base_date, tid, class, subclass, units_tenths, digits,
             purpose, issued_by, issued_at)
           SELECT id, %(meter)s, 2014, 7, 0, 0, 2500, '12345678901234567890', 'credit', 'worker',
             %(now)s - interval '6 minutes' FROM v""",
        ids,
    )
    await conn.execute(
        """WITH c AS (INSERT INTO meter_gateway.meter_command (meter_id, kind, argument, idempotency_key,
             requested_by, expires_at) VALUES (%(meter)s, 'token', '12345678901234567890', 'cmd-1', 'sale',
             now() + interval '1 day') RETURNING id)
           INSERT INTO meter_gateway.meter_command_step (command_id, state, occurred_at, detail)
           SELECT id, 'VERIFIED', %(now)s - interval '5 minutes', '{"result": "ACCEPT", "credit": 12500}' FROM c""",
        ids,
    )
    await town.event("a1", "raseed.token", NOW - 5 * MINUTE, '{"result": "ACCEPT", "carrier": "remote"}')
    await town.event("a1", "raseed.relay", NOW - 4 * MINUTE, '{"relay": 1, "reason": "none"}')
    await message_store.insert_message(
        conn,
        idempotency_key="m-1",
        customer_id=customer,
        phone=town.phones["a1"],
        kind="token",
        language="en",
        body="Token for meter: 1234 5678 9012 3456 7890",
        reference="",
        now=NOW - 3 * MINUTE,
    )
    ticket = (await opened(conn, town, kind=TicketKind.NO_SUPPLY, meter_id=meter)).ticket
    await answer_ticket.add_note(
        conn, ticket_id=ticket.id, text="secret note", actor_id=await town.staff(), now=NOW
    )
    await town.gasp("a1", "a2", at=NOW)
    await watch.evaluate(conn, now=NOW + MINUTE, rules=Rules(), languages=languages())
    return town


async def test_one_timeline_joins_every_room(conn, busy):
    rows = await timeline_store.list_customer_timeline(conn, customer_id=busy.customers["a1"], before=FUTURE)
    assert {r.source for r in rows} == {
        "payment", "vend", "token", "command", "meter", "outage", "ticket", "message", "installation",
    }  # fmt: skip
    assert [r.at for r in rows] == sorted((r.at for r in rows), reverse=True)
    by_meter = await timeline_store.list_meter_timeline(conn, meter_id=busy.meters["a1"], before=FUTURE)
    assert {r.source for r in by_meter} == {r.source for r in rows}


@pytest.mark.parametrize("code", ["ar", "en"])
async def test_staff_read_no_token_and_subscribers_no_note(conn, busy, code):
    rows = await timeline_store.list_customer_timeline(conn, customer_id=busy.customers["a1"], before=FUTURE)
    staff = describe(rows, languages()[code], public=False, desk=True)
    public = describe(rows, languages()[code], public=True)
    assert len(public) < len(staff)
    for line in staff:
        assert "5678 9012" not in line.text.replace("\u00a0", " ")
    assert any("secret note" in line.text for line in staff)
    assert not any("secret note" in line.text for line in public)


async def test_another_customer_sees_nothing_of_it(conn, busy):
    rows = await timeline_store.list_customer_timeline(conn, customer_id=busy.customers["c1"], before=FUTURE)
    assert {r.source for r in rows} == {"installation"}


async def test_a_new_tenant_does_not_read_the_one_before(conn, busy):
    await conn.execute(
        "UPDATE billing.customer_agreement SET valid_to = %s WHERE customer_id = %s",
        (NOW + 5 * MINUTE, busy.customers["a1"]),
    )
    await conn.execute(
        "INSERT INTO billing.customer_agreement (customer_id, usage_point_id, tariff_code, valid_from)"
        " VALUES (%s, %s, 'home-electricity', %s)",
        (busy.customers["c1"], busy.points["a1"], NOW + 5 * MINUTE),
    )
    rows = await timeline_store.list_customer_timeline(conn, customer_id=busy.customers["c1"], before=FUTURE)
    assert {(r.source, r.meter_id) for r in rows} == {("installation", busy.meters["c1"])}


async def test_pages_of_it_fit_together(conn, busy):
    whole = await timeline_store.list_customer_timeline(conn, customer_id=busy.customers["a1"], before=FUTURE)
    first = await timeline_store.list_customer_timeline(
        conn, customer_id=busy.customers["a1"], before=FUTURE, limit=4
    )
    assert 4 <= len(first) < len(whole)
    assert first == whole[: len(first)]
    rest = await timeline_store.list_customer_timeline(
        conn, customer_id=busy.customers["a1"], before=first[-1].at
    )
    assert rest == [r for r in whole if r.at < first[-1].at]


@pytest.mark.parametrize(("code", "title"), [("en", "Meter taken down"), ("ar", "فُكّ العداد")])
def test_a_meter_that_was_taken_down_leaves_its_reading(code, title):
    line = said(row("meter", "raseed.removed", counter=800_000, credit=4_250), public=True, code=code)
    assert line.title == title and "800" in line.text and "4.2" in line.text
