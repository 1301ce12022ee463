"""The engineer's pages: find by number, install, read, test; and what a meter without a link gets instead."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from billing import customer_store, identity_store, token_store
from meter_gateway import meter_store, network_store
from meter_gateway.command import apply_event
from meter_gateway.command_state import CommandEvent
from portal.field import commission, field_store, install
from portal.field.field_store import FieldCommand
from portal.field.install import InstallRefused, check_number
from portal.pages.field import FINAL, GIVE_UP_AFTER, is_moving
from tests.portal.small_town import LONG_AGO, NOW, build, drn_of
from tests.portal.visitor import visiting
from token_engine.decode import decode_clear
from token_engine.token_text import group_digits


@pytest.fixture
async def town(conn):
    """The small town, with a house that waits and three meters in stock: spare, keypad, and one without a key."""
    town = await build(conn)
    location = await network_store.insert_service_location(
        conn, code="L-99", address_en="House 99", address_ar="منزل 99"
    )
    town.points["free"] = await network_store.insert_usage_point(
        conn,
        code="UP-99",
        service_location_id=location,
        network_node_id=town.nodes["TX-3"],
        commodity="electricity",
    )
    await customer_store.insert_agreement(
        conn,
        customer_id=town.customers["c1"],
        usage_point_id=town.points["free"],
        tariff_code="home-electricity",
        valid_from=LONG_AGO,
    )
    for index, name, link in ((90, "spare", "mqtt"), (91, "keypad", "keypad"), (92, "blank", "mqtt")):
        town.drns[name] = drn_of(index)
        meter = await meter_store.insert_meter(
            conn, drn=town.drns[name], commodity="electricity", model="E1", link=link
        )
        town.meters[name] = meter.id
        if name != "blank":
            await identity_store.insert_identity(
                conn, meter_id=meter.id, iin="600727", sgc="201457", ti="01", krn=1, kt=2, ken=255,
                ea="07", dkga="02", base_date=2014,
            )  # fmt: skip
    await conn.commit()
    return town


@pytest.fixture
async def engineer(database_url, town):
    async with visiting(database_url) as visitor:
        await visitor.be_staff("engineer")
        yield visitor


def key_on(page):
    return unescape(re.search(r'name="form_key" value="([^"]+)"', page.text)[1])


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "number_letters"),
        ("abc", "number_letters"),
        ("123", "number_length"),
        (drn_of(1)[:-1] + str((int(drn_of(1)[-1]) + 1) % 10), "number_check_digit"),
        ("04000010000"[:10] + "0", "number_check_digit"),
    ],
)
def test_a_wrong_number_says_what_is_wrong(typed, reason):
    with pytest.raises(InstallRefused, match=reason):
        check_number(typed)


@pytest.mark.parametrize("zero", ["٠", "۰", "0"])
def test_a_number_is_read_as_it_is_typed(zero):
    drn = drn_of(1)
    typed = drn.translate({ord(str(n)): chr(ord(zero) + n) for n in range(10)})
    assert check_number(f" {typed[:4]} {typed[4:8]}-{typed[8:]}\u200f") == drn


@pytest.mark.parametrize(
    ("state", "after", "moving"),
    [
        ("CREATED", 0, True),
        ("SENT", 0, True),
        ("CREATED", 51, False),
        *((state, 0, False) for state in sorted(FINAL)),
    ],
)
def test_a_page_waits_no_longer_than_an_answer_may_come(state, after, moving):
    command = FieldCommand(1, 1, "x", "electricity", "mqtt", "read_now", state, NOW, NOW, {})
    command = replace(command, expires_at=NOW + timedelta(seconds=30))
    assert is_moving(command, NOW + timedelta(seconds=after)) is moving
    assert timedelta(0) < GIVE_UP_AFTER < timedelta(minutes=1)


PAGES = ["/field", "/field/meters/{a1}", "/field/meters/{spare}", "/field/meters/{a4}",
         "/field/meters/{spare}/install"]  # fmt: skip


@pytest.mark.parametrize("language", ["ar", "en"])
async def test_every_page_opens_in_both_languages(engineer, town, language, caplog):
    for path in PAGES:
        page = await engineer.get(path.format(**town.drns) + f"?lang={language}")
        assert page.status_code == 200, path
    assert "no Arabic for" not in caplog.text


@pytest.mark.parametrize("role", ["subscriber", "agent", None])
async def test_others_do_not_come_in(database_url, town, conn, role):
    async with visiting(database_url) as visitor:
        if role == "subscriber":
            await visitor.be_subscriber(town.customers["a1"])
        elif role:
            await visitor.be_staff(role)
        for path in PAGES:
            assert (await visitor.get(path.format(**town.drns))).status_code == (403 if role else 303)
        for step in ("install", "read", "clock", "test"):
            answer = await visitor.post(
                f"/field/meters/{town.drns['spare']}/{step}",
                {"form_key": "k" * 10, "usage_point_id": str(town.points["free"])},
            )
            assert answer.status_code == (403 if role else 303)
    cur = await conn.execute("SELECT count(*) FROM meter_gateway.meter_command")
    assert (await cur.fetchone())[0] == 0


async def test_finding_a_meter(engineer, town):
    found = await engineer.get("/field", params={"number": town.drns["spare"]})
    assert found.headers["location"] == f"/field/meters/{town.drns['spare']}"
    wrong = await engineer.get("/field", params={"number": town.drns["spare"][:-1] + "x"})
    assert "digits only" in wrong.text
    swapped = "04" + town.drns["spare"][2:][::-1]
    assert (await engineer.get("/field", params={"number": swapped})).status_code == 422
    unknown = await engineer.get("/field", params={"number": drn_of(77)})
    assert "no such meter" in unknown.text
    home = await engineer.get("/field")
    assert town.drns["spare"] in home.text
    assert "House 99" in home.text


async def test_a_meter_is_installed_and_tested_over_its_link(engineer, town, conn):
    place = f"/field/meters/{town.drns['spare']}"
    form = await engineer.get(f"{place}/install")
    assert "Salim Al Harthy 7" in form.text
    hung = await engineer.post(
        f"{place}/install", {"usage_point_id": str(town.points["free"]), "note": "seal 7"}
    )
    assert hung.headers["location"] == f"{place}/checklist"
    meter = await meter_store.find_meter_by_drn(conn, town.drns["spare"])
    cur = await conn.execute(
        "SELECT usage_point_id, installed_by, note FROM meter_gateway.meter_installation WHERE meter_id = %s",
        (meter.id,),
    )
    assert await cur.fetchall() == [(town.points["free"], "engineer", "seal 7")]
    key = key_on(await engineer.get(place))
    sent = await engineer.post(f"{place}/test", {"form_key": key})
    again = await engineer.post(f"{place}/test", {"form_key": key})
    answer = sent.headers["location"]
    assert again.headers["location"] == answer
    tokens = await token_store.list_tokens_of_meter(conn, meter.id, limit=10)
    assert [(token.token_class, token.purpose, token.tid) for token in tokens] == [(1, "test", None)]
    waiting = await engineer.get(answer)
    assert "Waiting for the meter" in waiting.text
    command_id = int(answer.rsplit("/", 1)[1])
    now = datetime.now(UTC)
    for event, detail in (
        (CommandEvent.SEND, {}),
        (CommandEvent.EDGE_ACCEPTED, {}),
        (CommandEvent.EDGE_VERIFIED, {"result": "ACCEPT", "credit": 12_500, "relay": 1, "load": 0}),
    ):
        await apply_event(conn, command_id, event, at=now, detail=detail)
    await conn.commit()
    done = await engineer.get(answer)
    assert "accepted the test token" in done.text
    assert "12.5" in done.text
    assert "Test token accepted" in (await engineer.get(place)).text
    assert "Test token issued" in (await engineer.get(place)).text


async def test_a_meter_or_a_place_is_taken_once(engineer, town):
    place = f"/field/meters/{town.drns['spare']}/install"
    assert (await engineer.post(place, {"usage_point_id": str(town.points["free"])})).status_code == 303
    other = f"/field/meters/{town.drns['keypad']}/install"
    refused = await engineer.post(other, {"usage_point_id": str(town.points["free"])})
    assert refused.status_code == 422
    assert "hangs there already" in refused.text
    again = await engineer.post(place, {"usage_point_id": str(town.points["free"])})
    assert again.status_code in {303, 422}


@pytest.mark.parametrize("point", ["999999", "0", "x", "w"])
async def test_a_bad_place_changes_nothing(engineer, town, conn, point):
    given = str(town.points["w1"]) if point == "w" else point
    answer = await engineer.post(f"/field/meters/{town.drns['spare']}/install", {"usage_point_id": given})
    assert answer.status_code == 422
    assert len(await field_store.list_spare_meters(conn)) == 3


async def test_a_meter_without_a_key_is_neither_installed_nor_tested(engineer, town):
    place = f"/field/meters/{town.drns['blank']}"
    refused = await engineer.post(f"{place}/install", {"usage_point_id": str(town.points["free"])})
    assert "no key identity" in refused.text
    tested = await engineer.post(f"{place}/test", {"form_key": "k" * 10})
    assert tested.status_code == 303
    assert "no key identity" in (await engineer.get(place)).text


async def test_a_keypad_meter_gets_its_token_on_the_screen(engineer, town, conn):
    page = await engineer.post(f"/field/meters/{town.drns['keypad']}/test", {"form_key": "k" * 10})
    digits = re.search(r'class="token">([^<]+)<', page.text)[1].replace("\u00a0", "")
    assert decode_clear(digits).token_class == 1
    assert group_digits(digits) in page.text
    read = await engineer.post(f"/field/meters/{town.drns['keypad']}/read", {"form_key": "k" * 10})
    assert read.headers["location"] == f"/field/meters/{town.drns['keypad']}"
    assert "no link" in (await engineer.get(read.headers["location"])).text
    cur = await conn.execute("SELECT count(*) FROM meter_gateway.meter_command")
    assert (await cur.fetchone())[0] == 0


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (((CommandEvent.SEND, {}), (CommandEvent.EDGE_ACCEPTED, {}),
          (CommandEvent.EDGE_VERIFIED, {"credit": 3_000, "counter": 9_000_000, "relay": 2, "load": 120,
                                 "registers": {"serial": "0400", "boot_count": 3}})), "boot_count"),
        (((CommandEvent.DEADLINE, {"reason": "deadline"}),), "did not reach the meter"),
    ],
)  # fmt: skip
async def test_live_registers_and_what_is_said_when_none_come(engineer, town, conn, events, words):
    place = f"/field/meters/{town.drns['a1']}"
    asked = await engineer.post(f"{place}/read", {"form_key": key_on(await engineer.get(place))})
    answer = asked.headers["location"]
    for event, detail in events:
        await apply_event(conn, int(answer.rsplit("/", 1)[1]), event, at=datetime.now(UTC), detail=detail)
    await conn.commit()
    page = await engineer.get(answer)
    assert words in page.text
    part = await engineer.get(answer, headers={"HX-Request": "true"})
    assert words in part.text
    assert "<html" not in part.text


async def test_a_clock_is_set_and_an_order_is_called_back_while_it_has_not_left(engineer, town, conn):
    place = f"/field/meters/{town.drns['a1']}"
    form = {"form_key": key_on(await engineer.get(place))}
    answer = (await engineer.post(f"{place}/clock", form)).headers["location"]
    assert (await engineer.post(f"{place}/clock", form)).headers["location"] == answer
    page = await engineer.get(answer)
    assert "Set the clock" in page.text and f"{answer}/take-back" in page.text
    await engineer.post(f"{answer}/take-back")
    command = await field_store.find_command(conn, int(answer.rsplit("/", 1)[1]))
    assert (command.kind, command.state, command.requested_by) == ("clock", "CANCELLED", "engineer")
    back = await engineer.get(answer)
    assert "Called back before it left" in back.text and "take-back" not in back.text
    keypad = await engineer.post(f"/field/meters/{town.drns['a4']}/clock", form)
    assert keypad.headers["location"] == f"/field/meters/{town.drns['a4']}"


async def test_what_left_a_token_and_another_persons_order_are_not_called_back(engineer, town, conn):
    meter = {"meter_id": town.meters["a1"], "now": datetime.now(UTC)}
    sent = await commission.set_clock(conn, key="k" * 8, actor="engineer", **meter)
    await apply_event(conn, sent, CommandEvent.SEND, at=meter["now"], detail={})
    theirs = await commission.set_clock(conn, key="j" * 8, actor="office", **meter)
    test = await install.send_test_token(conn, key="k" * 8, actor="engineer", **meter)
    await conn.commit()
    for command_id, state in ((sent, "SENT"), (theirs, "CREATED"), (test.command_id, "CREATED")):
        assert "take-back" not in (await engineer.get(f"/field/commands/{command_id}")).text
        refused = await engineer.post(f"/field/commands/{command_id}/take-back")
        assert "cannot be called back" in (await engineer.get(refused.headers["location"])).text
        assert (await field_store.find_command(conn, command_id)).state == state
    assert (await engineer.post("/field/commands/99/take-back")).status_code == 404


async def test_an_order_that_left_in_this_moment_is_told(conn, town):
    now = datetime.now(UTC)
    made = await commission.set_clock(conn, meter_id=town.meters["a1"], key="k" * 8, actor="x", now=now)
    seen = await field_store.find_command(conn, made)
    await apply_event(conn, made, CommandEvent.SEND, at=now, detail={})
    with pytest.raises(InstallRefused, match="left_already"):
        await commission.take_back(conn, seen, actor="x", now=now)


@pytest.mark.parametrize(
    "path", ["/field/meters/04000000099", "/field/commands/99", "/field/meters/x/install"]
)
async def test_what_is_not_there_is_a_plain_page(engineer, path):
    assert (await engineer.get(path)).status_code == 404


async def test_a_key_used_for_another_meter_is_no_second_command(conn, town):
    first = await install.read_now(conn, meter_id=town.meters["a1"], key="k" * 8, actor="x", now=NOW)
    other = await install.read_now(conn, meter_id=town.meters["b1"], key="k" * 8, actor="x", now=NOW)
    assert first != other
    same = await install.read_now(conn, meter_id=town.meters["a1"], key="k" * 8, actor="x", now=NOW)
    assert same == first
