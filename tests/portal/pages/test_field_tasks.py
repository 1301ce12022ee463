"""Sites, scans, probes, registers, word orders and traces on the phone, with the gateway's word put in by hand."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from meter_gateway import meter_store, site_task_store
from meter_gateway.order_site_task import apply_report
from portal.field import field_site_store
from tests.portal.field_town import build_field_town, hidden
from tests.portal.small_town import drn_of
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


# -- sites and tasks ------------------------------------------------------------------------------------------


async def start(engineer, kind, **fields):
    form = {"kind": kind, "form_key": "task-00001"} | fields
    answer = await engineer.post(f"{BUS}/tasks", form)
    assert answer.headers["location"].startswith("/field/tasks/"), answer.headers["location"]
    return answer.headers["location"]


async def report(conn, where, state, progress=100, **result):
    await apply_report(
        conn, int(where.rsplit("/", 1)[1]), site="site-1", state=state, progress=progress, result=result,
        now=datetime.now(UTC),
    )  # fmt: skip
    await conn.commit()


async def test_the_map_shows_each_link(engineer, town, conn):
    page = await engineer.get("/field/sites/site-1")
    assert town.drns["a3"] in page.text and town.drns["b2"] in page.text
    assert (await field_site_store.list_map(conn, datetime.now(UTC)))[0].count(
        "unknown"
    ) == 2  # heard an hour ago
    part = await engineer.get("/field/sites/site-1", headers={"HX-Request": "true"})
    assert "<html" not in part.text and 'id="map"' in part.text
    assert (await engineer.get("/field/sites/nowhere")).status_code == 404
    assert (await engineer.get("/field/sites/site-1/buses/nowhere")).status_code == 404


async def test_a_scan_tells_known_from_unknown(engineer, town, conn):
    where = await start(engineer, "scan", first="1", last="10")
    assert await start(engineer, "scan", first="1", last="10") == where, "the same form is the same task"
    waiting = await engineer.get(where)
    assert 'hx-trigger="every 1s"' in waiting.text
    one = {"baud": 9600, "parity": "N", "answer": "data", "code": 0, "model": "", "ms": 12}
    found = [
        {"unit": 3, "serial": town.drns["a3"], **one},
        {"unit": 6, "serial": drn_of(77), **one},
        {"unit": 9, "serial": "", **one},
        {"unit": 10, "serial": town.drns["wire"], **one},
    ]
    await report(conn, where, "DONE", asked=10, total=10, units_found=found, garbled=[5], lines=[])
    page = await engineer.get(where)
    assert "hx-trigger" not in page.text
    assert "Known meter" in page.text and "Unknown meter" in page.text
    assert "Another meter than in our books" in page.text, (
        "unit 6 answers with a number that is not the one we know"
    )
    assert "not on this bus" in page.text
    assert hidden(page, "form_key").endswith("-3")
    assert "5" in re.search(r"unreadable came from units:([^.]*)", page.text)[1]


async def test_a_probe_gives_its_reasons_and_leads_to_the_books(engineer, town, conn):
    where = await start(engineer, "probe", unit="9")
    profiles = [
        {"profile": "raseed-prepaid-e1", "title": "x", "score": 88, "ruled_out": False, "reasons": [
            {"code": "serial_is_drn", "points": 40, "text": "t", "register": "serial", "value": drn_of(77)}]},
        {"profile": "eastron-sdm120", "title": "x", "score": 0, "ruled_out": True, "reasons": [
            {"code": "refuses", "points": -40, "text": "t", "register": "", "value": None}]},
    ]  # fmt: skip
    await report(
        conn, where, "DONE", unit=9, serial=drn_of(77), max_read=125, is_silent=False,
        likely="raseed-prepaid-e1", profiles=profiles,
    )  # fmt: skip
    page = await engineer.get(where)
    assert "its check digit is right" in page.text and "Likely" in page.text
    assert "It refuses registers that this profile needs." in page.text
    form = await engineer.get(f"{BUS}/units/9/add?profile=raseed-prepaid-e1&serial={drn_of(77)}")
    assert f'value="{drn_of(77)}"' in form.text and 'value="201457"' in form.text
    names = {
        name: hidden(form, name) for name in ("drn", "model", "sgc", "ti", "krn", "ken", "ea", "dkga", "iin")
    }
    typed = names | {"profile": "raseed-prepaid-e1", "kt": "1", "base_date": "2014"}
    for wrong in ({"sgc": "12"}, {"drn": "x"}, {"profile": "none"}, {"krn": "999"}, {"model": ""}):
        refused = await engineer.post(f"{BUS}/units/9/add", typed | wrong)
        assert refused.status_code == 422, wrong
        assert 'role="alert"' in refused.text
    assert await meter_store.find_meter_by_drn(conn, drn_of(77)) is None
    taken = await engineer.post(f"{BUS}/units/9/add", typed)
    assert taken.headers["location"] == f"/field/meters/{drn_of(77)}/install"
    meter = await meter_store.find_meter_by_drn(conn, drn_of(77))
    assert (meter.unit_id, meter.profile) == (9, "raseed-prepaid-e1")


@pytest.mark.parametrize(
    ("reason", "words"),
    [("bus_down", "cannot open this bus"), ("no_answer", "did not answer"), ("?", "could not do it")],
)
async def test_a_task_that_failed_says_what_to_do(engineer, town, conn, reason, words):
    where = await start(engineer, "trace", seconds="10")
    await report(conn, where, "FAILED", reason=reason, text="x")
    assert words in (await engineer.get(where)).text


async def test_registers_trace_and_stop(engineer, town, conn):
    where = await start(engineer, "registers", unit="3", profile="raseed-prepaid-e1")
    rows = [
        {"name": "credit", "block": "b", "fc": 3, "address": 4096, "words": [1, 65535], "value": 1, "unit": "Wh",
         "text": "131.071 kWh", "error": ""},
        {"name": "odd", "block": "b", "fc": 3, "address": 4100, "words": [], "value": None, "unit": "", "text": "",
         "error": "x"},
    ]  # fmt: skip
    await report(conn, where, "DONE", unit=3, profile="raseed-prepaid-e1", at=1_790_000_000_000, rows=rows)
    page = await engineer.get(where)
    assert "0001 FFFF" in page.text and "131.071 kWh" in page.text and "0x1000" in page.text
    assert "cannot be read" in page.text
    where = await start(engineer, "trace", seconds="10", form_key="task-00002")
    lines = [
        {
            "at": 1_790_000_000_000,
            "kind": "silence",
            "unit": 7,
            "text": "unit 7 did not answer in time",
            "ms": None,
        }
    ]
    await report(conn, where, "DONE", lines=lines, counts={"silence": 1}, dropped=0)
    assert "Unit 7 did not answer in time." in (await engineer.get(where)).text
    assert "لم تجب الوحدة 7" in (await engineer.get(f"{where}?lang=ar")).text
    where = await start(engineer, "scan", form_key="task-00003")
    await engineer.post(f"{where}/cancel")
    task = await site_task_store.find_task(conn, int(where.rsplit("/", 1)[1]))
    assert task.state == "CANCELLED"


@pytest.mark.parametrize(
    "typed", [{"display": "1234.5"}, {"order": "ABCD"}, {"order": "CDAB"}, {"display": "x"}, {}]
)
async def test_the_word_order_is_judged_by_the_display(engineer, town, conn, typed):
    where = await start(engineer, "words", unit="3", profile="raseed-prepaid-e1", register="counter")
    orders = [{"order": order, "value": 1, "text": order} for order in ("ABCD", "CDAB", "BADC", "DCBA")]
    words = list((1_234_500).to_bytes(8, "big"))
    registers = [words[at] << 8 | words[at + 1] for at in range(0, 8, 2)]
    from meter_gateway.profile import load_profile

    register = load_profile("raseed-prepaid-e1").registers["counter"]
    registers = registers[-register.count :]
    await report(
        conn, where, "DONE", unit=3, profile="raseed-prepaid-e1", register="counter", at=1, type=register.type,
        fc=3, address=register.address, words=registers, profile_order=register.order, orders=orders,
    )  # fmt: skip
    page = await engineer.post(f"{where}/judge", typed)
    assert page.status_code == 200
    fits = typed in ({"display": "1234.5"}, {"order": "ABCD"})
    assert ("The display confirms the profile" in page.text) == fits
    assert "notice-" in page.text


@pytest.mark.parametrize(
    "fields",
    [{"kind": "spell"}, {"kind": "scan", "first": "9", "last": "3"}, {"kind": "probe", "unit": "0"},
     {"kind": "scan", "first": "x"}, {"kind": "registers", "unit": "3", "profile": "../x"},
     {"kind": "trace", "seconds": "9999"}],
)  # fmt: skip
async def test_a_task_that_makes_no_sense_is_not_started(engineer, town, conn, fields):
    answer = await engineer.post(f"{BUS}/tasks", {"form_key": "task-00001"} | fields)
    assert answer.headers["location"] == BUS
    assert await site_task_store.list_tasks(conn) == []
