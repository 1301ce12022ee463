"""The way of a meter on the phone: hung, proven, certified, its relay, replaced, taken down."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from billing import token_store
from meter_gateway import meter_store
from meter_gateway.command import apply_event
from meter_gateway.command_state import CommandEvent
from portal.field import (
    commissioning_store,
    field_store,
    gather_checklist,
    install,
    remove_meter,
    replace_meter,
    take_stock,
)
from portal.pages import field_add, field_drafts
from portal.pages.field import OTHER_REFUSAL, REFUSAL_WORDS
from tests.portal.field_town import build_field_town, hidden
from tests.portal.small_town import drn_of, languages
from tests.portal.visitor import visiting

BUS = "/field/sites/site-1/buses/rtu-1"


@pytest.fixture
async def town(conn):
    return await build_field_town(conn)


@pytest.fixture
async def engineer(database_url, town):
    async with visiting(database_url) as visitor:
        await visitor.be_staff("engineer")
        yield visitor


def draft(town, name="a1", **fields):
    return {"form_key": "draft-0001", "kind": "entry", "drn": town.drns[name], "item": "wiring"} | fields


# -- the way of a meter -------------------------------------------------------------------------------------


async def verify(conn, meter_id, prefix, **detail):
    command = await field_store.find_last_command(conn, meter_id, key_prefix=prefix)
    for event in (CommandEvent.SEND, CommandEvent.EDGE_ACCEPTED, CommandEvent.EDGE_VERIFIED):
        await apply_event(
            conn, command.id, event, at=datetime.now(UTC),
            detail=detail if event is CommandEvent.EDGE_VERIFIED else {},
        )  # fmt: skip
    await conn.commit()


async def test_a_meter_is_installed_proven_and_certified(engineer, town, conn):
    drn, meter = town.drns["spare"], town.meters["spare"]
    place = f"/field/meters/{drn}"
    preview = await engineer.post(
        f"{place}/install/preview", {"usage_point_id": str(town.points["free"]), "note": "n"}
    )
    assert "House 99" in preview.text and "What will happen" in preview.text
    assert (await meter_store.get_meter(conn, meter)).id == meter
    assert await commissioning_store.find_place(conn, meter) is None, "a preview changes nothing"
    await engineer.post(f"{place}/install", {"usage_point_id": hidden(preview, "usage_point_id")})
    assert drn in (await engineer.get("/field")).text
    early = await engineer.post(f"{place}/finish")
    assert early.headers["location"] == f"{place}/checklist"
    await town.state("spare", datetime.now(UTC), link_up=True, counter=5_000, relay=1)
    await conn.commit()
    for number, fields in enumerate(
        ({"item": "wiring"}, {"item": "seal", "note": "4471"}, {"kind": "reading", "display": "5"}), 1
    ):
        await engineer.post("/field/drafts", draft(town, "spare", form_key=f"draft-000{number}", **fields))
    await engineer.post(f"{place}/test", {"form_key": "k" * 10})
    await verify(conn, meter, "field-test:", result="ACCEPT")
    listed = await engineer.get(f"{place}/checklist")
    assert "Finish the commissioning" in listed.text
    done = await engineer.post(f"{place}/finish")
    assert done.headers["location"] == f"{place}/certificate"
    certificate = await engineer.get(f"{place}/certificate")
    assert "4471" in certificate.text and "Certificate of commissioning" in certificate.text
    again = await engineer.post(f"{place}/finish")
    assert again.headers["location"] == f"{place}/certificate"
    cur = await conn.execute("SELECT count(*) FROM portal.commissioning_certificate")
    assert (await cur.fetchone())[0] == 1


async def test_the_relay_is_exercised_with_a_recorded_consent_only(engineer, town, conn):
    now = datetime.now(UTC)
    drn, meter = town.drns["a1"], town.meters["a1"]
    place = f"/field/meters/{drn}"
    await town.state("a1", now, link_up=True, relay=1)
    await conn.commit()
    form = {"step": "open", "form_key": "relay-0001"}
    refused = await engineer.post(f"{place}/relay", form)
    assert refused.headers["location"] == f"{place}/checklist"
    assert (
        await field_store.find_last_command(conn, meter, key_prefix=gather_checklist.RELAY_OPEN_KEY) is None
    )
    consent = draft(town, kind="consent", given_by="Salim Al Harthy", method="signature")
    await engineer.post("/field/drafts", consent)
    assert "Consent of Salim Al Harthy" in (await engineer.get(f"{place}/checklist")).text
    await engineer.post(f"{place}/relay", form)
    await verify(conn, meter, gather_checklist.RELAY_OPEN_KEY, relay=0)
    assert "Close it again before you leave" in (await engineer.get(f"{place}/checklist")).text
    await engineer.post(f"{place}/relay", {"step": "close", "form_key": "relay-0002"})
    await verify(conn, meter, gather_checklist.RELAY_CLOSE_KEY, relay=2)
    await town.state("a1", now, link_up=True, relay=2)
    await conn.commit()
    over = await engineer.get(f"{place}/relay")
    assert "was closed again" in over.text and "press the button at the meter" in over.text


async def test_at_a_critical_customer_no_button_and_no_order(engineer, town, conn):
    drn, meter = town.drns["a1"], town.meters["a1"]
    await conn.execute("UPDATE meter_gateway.service_location SET is_critical = true WHERE code = 'L-1'")
    await town.state("a1", datetime.now(UTC), link_up=True)
    await conn.commit()
    page = await engineer.get(f"/field/meters/{drn}/checklist")
    assert "Critical customer." in page.text
    assert f"/field/meters/{drn}/relay" not in page.text and "given_by" not in page.text
    assert 'name="step"' not in (await engineer.get(f"/field/meters/{drn}/relay")).text
    for step in ("open", "close"):
        await engineer.post(f"/field/meters/{drn}/relay", {"step": step, "form_key": "relay-0001"})
    assert await field_store.find_last_command(conn, meter, key_prefix="field-relay") is None


async def test_a_meter_is_replaced_after_its_preview(engineer, town, conn):
    now = datetime.now(UTC)
    old, new = town.drns["a1"], town.drns["spare"]
    await town.state("a1", now, link_up=True, counter=9_000_000, credit=12_500, state_at=now)
    await conn.commit()
    place = f"/field/meters/{old}/replace"
    for wrong in (
        {"new": old},
        {"new": town.drns["b1"]},
        {"new": drn_of(78)},
        {"new": new, "counter": "1", "credit": "1"},
    ):
        refused = await engineer.post(f"{place}/preview", wrong)
        assert refused.status_code == 422 and 'role="alert"' in refused.text, wrong
    preview = await engineer.post(f"{place}/preview", {"new": new})
    assert "12.5" in preview.text and "go to the new meter by a token" in preview.text
    form = {
        name: hidden(preview, name) for name in ("form_key", "new", "counter_base", "credit_base", "source")
    }
    done = await engineer.post(place, form)
    assert done.headers["location"] == f"/field/meters/{new}/checklist"
    again = await engineer.post(place, form)
    assert again.headers["location"] == done.headers["location"]
    hangs = await commissioning_store.find_place(conn, town.meters["spare"])
    assert hangs.usage_point_id == town.points["a1"]
    assert await commissioning_store.find_place(conn, town.meters["a1"]) is None


async def test_a_meter_is_taken_down_with_a_typed_reading(engineer, town, conn):
    place = f"/field/meters/{town.drns['a4']}/remove"  # a keypad meter: nobody but its display tells
    empty = await engineer.post(f"{place}/preview", {"settle": "keep"})
    assert empty.status_code == 422
    preview = await engineer.post(
        f"{place}/preview", {"counter": "٤٥٦٫٧", "credit": "−1.5", "settle": "keep"}
    )
    assert "No credit is left to carry over." in preview.text
    form = {
        name: hidden(preview, name)
        for name in ("form_key", "counter_base", "credit_base", "source", "settle")
    }
    assert (form["counter_base"], form["credit_base"], form["source"]) == ("456700", "-1500", "display")
    done = await engineer.post(place, form)
    assert done.headers["location"] == f"/field/meters/{town.drns['a4']}"
    assert await commissioning_store.find_place(conn, town.meters["a4"]) is None


async def taken_down(conn, meter_id):
    return await commissioning_store.find_place(conn, meter_id) is None


async def test_money_is_given_by_the_office_and_not_at_the_meter(engineer, town, conn):
    place = f"/field/meters/{town.drns['a4']}/remove"
    assert 'name="settle"' not in (await engineer.get(place)).text
    typed = {"counter": "456.7", "credit": "0", "settle": "money"}
    assert (await engineer.post(f"{place}/preview", typed)).status_code == 403
    form = {"form_key": "k" * 10, "counter_base": "1", "credit_base": "0", "source": "display"}
    assert (await engineer.post(place, form | {"settle": "money"})).status_code == 403
    assert not await taken_down(conn, town.meters["a4"])
    await engineer.be_staff("admin")
    assert 'value="money"' in (await engineer.get(place)).text
    assert (await engineer.post(place, form | {"settle": "money"})).status_code == 303
    assert await taken_down(conn, town.meters["a4"])


async def test_hidden_fields_cannot_speak_for_the_meter(engineer, town, conn):
    now = datetime.now(UTC)
    await town.state("a1", now, link_up=True, counter=9_000_000, credit=4_250, state_at=now)
    await conn.commit()
    place = f"/field/meters/{town.drns['a1']}/remove"
    form = {"form_key": "k" * 10, "counter_base": "9000000", "source": "meter"}
    lie = await engineer.post(place, form | {"credit_base": "500000000"})
    assert lie.status_code == 422 and "has told another reading" in lie.text
    assert not await taken_down(conn, town.meters["a1"])
    high = await engineer.post(f"{place}/preview", {"counter": "9000", "credit": "152.3"})
    assert "wait for the office" in high.text
    await engineer.post(place, form | {"credit_base": "4250"})
    assert await taken_down(conn, town.meters["a1"])


async def test_at_a_silent_meter_the_page_asks_what_came_of_its_last_token(engineer, town, conn):
    now, meter = datetime.now(UTC), town.meters["a1"]
    await town.state("a1", now, link_up=False, counter=9_000_000, credit=4_250, state_at=now)
    await token_store.insert_service_token(
        conn,
        meter_id=meter,
        base_date=2014,
        tid=5,
        token_class=0,
        subclass=0,
        units_tenths=200,
        digits="1" * 20,
        purpose="credit",
        issued_by="test",
        reason="",
        now=now,
    )
    await conn.commit()
    place = f"/field/meters/{town.drns['a1']}/remove"
    asked = await engineer.post(f"{place}/preview")
    assert asked.status_code == 422 and 'name="silent"' in asked.text and "Say whether" in asked.text
    assert "Leave the fields empty" not in asked.text, "its own word may be older than the token"
    said = {"silent": "not_taken", "tokens": hidden(asked, "tokens")}
    unread = await engineer.post(f"{place}/preview", said)
    assert unread.status_code == 422 and "as the display shows them" in unread.text
    preview = await engineer.post(f"{place}/preview", {"counter": "9000", "credit": "4.25", **said})
    form = {
        name: hidden(preview, name)
        for name in ("form_key", "counter_base", "credit_base", "source", "settle", "silent", "tokens")
    }
    assert form["silent"] == "not_taken" and "24.3" in preview.text
    changed = await engineer.post(place, form | {"tokens": f"{form['tokens']},{10**9}"})
    assert changed.status_code == 422 and not await taken_down(conn, meter)
    await engineer.post(place, form)
    assert await taken_down(conn, meter)
    cur = await conn.execute("SELECT word, said_by FROM billing.v_token_word")
    assert await cur.fetchall() == [("not_taken", "engineer")]


def reasons_of(*modules):
    text = "".join(Path(module.__file__).read_text(encoding="utf-8") for module in modules)
    return set(re.findall(r'InstallRefused\("(\w+)"\)', text))


def test_every_reason_of_a_refusal_has_words_of_its_own():
    english = languages()["en"]
    found = reasons_of(install, remove_meter, replace_meter)
    assert {"credit_not_cleared", "point_taken", "sale_open"} <= found
    wordless = {reason for reason in found if field_drafts.refused_words(reason, english) == OTHER_REFUSAL}
    assert not wordless
    stock = reasons_of(take_stock) - {"link_unknown"}  # the page gives the link itself
    assert stock <= set(field_add.ADD_WORDS) | set(REFUSAL_WORDS)
