"""The town's pages on a seeded database and a street of real meters."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
from psycopg import sql

import raseed.seed
from firmware_sim import meter as rules
from firmware_sim.town import build_town
from portal import town_store
from portal.app import make_app
from portal.control_link import Face
from portal.i18n import load_languages
from portal.pages.town import RESULT_WORDS, STAGE_WORDS, STOPPED_WORDS, branches, chosen, sale_steps
from portal.sale import Outcome, Progress, Stage, StageTime
from portal.town_store import NodeRow
from tests.conftest import with_database
from tests.portal.street import Street, open_street
from token_engine.token_result import TokenResult

WRONG = "11112222333344445555"
NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def town_url(server_url: str, template_database: str) -> Iterator[str]:
    """A seeded database for this file: its tests only add messages."""
    name = f"raseed_town_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template_database)
            )
        )
    url = with_database(server_url, name)

    async def fill() -> None:
        async with await psycopg.AsyncConnection.connect(url) as opened:
            await raseed.seed.seed(opened, build_town(), now=datetime.now(UTC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raseed.seed, "HISTORY_DAYS", 1)  # these pages show no history
        asyncio.run(fill())
    yield url
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with open_street() as opened:
        yield opened


@asynccontextmanager
async def browse(url: str, control_url: str, *, demo: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(
        database_url=url,
        secret_key="a key of this test alone",
        demo=demo,
        public_url="http://town.test",
        provider_url="http://127.0.0.1:9",
        provider_secret="not used here",
        control_url=control_url,
    )
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://town.test", follow_redirects=True
        ) as client,
    ):
        yield client


@pytest.fixture
async def browser(town_url: str, street: Street) -> AsyncIterator[httpx.AsyncClient]:
    async with browse(town_url, street.url) as client:
        yield client


async def send(client: httpx.AsyncClient, path: str, *, of: str = "/town", **fields: str) -> httpx.Response:
    """Send a form as a browser does: with the secret that its page carries."""
    page = await client.get(of)
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert found
    return await client.post(path, data={"csrf_token": found[1], **fields})


@pytest.mark.parametrize(
    ("lang", "words"), [("en", "Five things to try"), ("ar", "خمسة أشياء تجربها")], ids=["en", "ar"]
)
async def test_the_front_page_shows_the_whole_town(
    browser: httpx.AsyncClient, street: Street, lang: str, words: str
) -> None:
    page = await browser.get(f"/?lang={lang}")
    assert page.status_code == 200
    assert words in page.text
    for persona in ("subscriber", "agent", "engineer"):
        assert f'action="/demo/sign-in/{persona}"' in page.text
    assert page.text.count('class="face ') == len(street.town.meters)
    assert page.text.count("/power") == len(street.town.nodes)
    first = street.town.meters[0].drn
    assert f'href="/demo/meters/{first}?digits=' in page.text, (
        "the wrong token is tried at the persona's meter"
    )


@pytest.mark.parametrize("show", ["water", "TX-3", "shelf", "no such filter"])
async def test_the_filter_shows_its_meters_only(
    browser: httpx.AsyncClient, street: Street, show: str
) -> None:
    town = street.town
    expected = {
        "water": {m.drn for m in town.meters if m.commodity == "water"},
        "TX-3": {m.drn for m in town.meters_under("TX-3")},
        "shelf": {m.drn for m in town.spares if m.drn not in street.placed},
    }.get(show, set(town.meter_by_drn))
    page = await browser.get("/town", params={"show": show})
    assert set(re.findall(r'id="face-(\d+)"', page.text)) == expected


@pytest.mark.parametrize("part", ["sale", "network", "meters"])
async def test_a_part_refreshes_alone(browser: httpx.AsyncClient, part: str) -> None:
    page = await browser.get("/town", params={"part": part}, headers={"HX-Request": "true"})
    assert page.text.strip().startswith("<section")
    assert f'id="{part}"' in page.text
    assert "<html" not in page.text
    assert "<html" in (await browser.get("/town", params={"part": part})).text, "without htmx: the page"


async def test_a_keypad_takes_digits_one_by_one_and_its_meter_answers(
    browser: httpx.AsyncClient, street: Street
) -> None:
    drn = street.town.installed[1].drn
    path = f"/demo/meters/{drn}"
    pressed = await send(browser, f"{path}/keypad?lang=en", of=path, digits="12", key="3")
    assert 'value="123"' in pressed.text
    assert street.states[drn].attempts == (), "a digit alone is not entered"
    cleared = await send(browser, f"{path}/keypad?lang=en", of=path, digits="123", key="clear")
    assert 'value=""' in cleared.text
    empty = await send(browser, f"{path}/keypad?lang=en", of=path, digits=" - ", key="enter")
    assert (empty.status_code, "Type the digits of a token first." in empty.text) == (422, True)
    eastern = "١١١١ ٢٢٢٢ ٣٣٣٣ ٤٤٤٤ ٥٥٥٥"
    answered = await send(browser, f"{path}/keypad?lang=en", of=path, digits=eastern)
    last = street.states[drn].attempts[0]
    assert RESULT_WORDS[last.result.lower()].replace("'", "&#39;") in answered.text
    assert f">{TokenResult[last.result].display_code:02d}</bdi>" in answered.text


async def test_a_cut_transformer_darkens_its_meters_and_comes_back(
    browser: httpx.AsyncClient, street: Street
) -> None:
    drn = street.town.meters_under("TX-4")[0].drn
    done = await send(browser, "/demo/network/TX-4/power?lang=en", power="off")
    assert done.status_code == 200
    page = (await browser.get("/town?lang=en&show=TX-4")).text
    assert page.count("lcd-dark") == len(street.town.meters_under("TX-4"))
    assert "branch-dead" in page
    path = f"/demo/meters/{drn}"
    typed = await send(browser, f"{path}/keypad?lang=en", of=path, digits=WRONG)
    assert (typed.status_code, "no power" in typed.text) == (409, True)
    await send(browser, "/demo/network/TX-4/power?lang=en", power="on")
    assert "branch-dead" not in (await browser.get("/town")).text


async def test_a_meter_that_waits_for_a_hand_gets_one(browser: httpx.AsyncClient, street: Street) -> None:
    meter = next(m for m in street.town.installed if street.states[m.drn].hand_closes and m.initial_credit)
    path = f"/demo/meters/{meter.drn}"
    state = street.states[meter.drn]
    for number, order in enumerate(("relay_open", "relay_close"), 1):
        state, _, _ = rules.run_command(state, number, order, "", street.now_ms)
    street.states[meter.drn] = state
    assert "Press the button" in (await browser.get(f"{path}?lang=en")).text
    done = await send(browser, f"{path}/button?lang=en", of=path)
    assert "The button was pressed." in done.text
    assert street.states[meter.drn].relay == 1
    assert "Press the button" not in done.text


async def test_a_meter_goes_onto_the_wall_where_the_books_have_it(
    browser: httpx.AsyncClient, street: Street, town_url: str
) -> None:
    drn, point = street.town.spares[0].drn, street.town.free_usage_points[0].code
    path = f"/demo/meters/{drn}"
    assert "on the shelf, not installed" in (await browser.get(f"{path}?lang=en")).text
    assert (await send(browser, f"{path}/hang", of=path)).status_code == 404, "the books know no place for it"
    async with await psycopg.AsyncConnection.connect(town_url) as conn:
        await conn.execute(
            "INSERT INTO meter_gateway.meter_installation (meter_id, usage_point_id, installed_at, installed_by)"
            " SELECT m.id, u.id, now(), 'engineer' FROM meter_gateway.meter m, meter_gateway.usage_point u"
            " WHERE m.drn = %s AND u.code = %s",
            (drn, point),
        )
    assert "Hang it on the wall" in (await browser.get(f"{path}?lang=en")).text
    done = await send(browser, f"{path}/hang?lang=en", of=path)
    assert "The meter hangs on its wall now." in done.text
    assert street.placed == {drn: point}
    assert "Hang it on the wall" not in done.text


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/demo/network/NOWHERE/power", {"power": "off"}, 404),
        ("/demo/network/TX-1/power", {"power": "maybe"}, 422),
        ("/demo/network/TX-1/power", {}, 422),
        ("/demo/meters/00000000000/keypad", {"digits": WRONG}, 404),
        ("/demo/meters/00000000000/button", {}, 404),
        ("/demo/meters/x/keypad", {"digits": "1" * 201}, 422),
    ],
)
async def test_bad_input_is_an_answer_and_changes_nothing(
    browser: httpx.AsyncClient, street: Street, path: str, fields: dict[str, str], status: int
) -> None:
    before = dict(street.states)
    assert (await send(browser, path, **fields)).status_code == status
    assert street.states == before
    assert not street.off


async def test_a_form_of_elsewhere_types_nothing(browser: httpx.AsyncClient, street: Street) -> None:
    drn = street.town.installed[2].drn
    answer = await browser.post(f"/demo/meters/{drn}/keypad", data={"digits": WRONG, "csrf_token": "x"})
    assert answer.status_code == 403
    assert street.states[drn].attempts == ()


async def test_an_unknown_meter_is_not_here(browser: httpx.AsyncClient) -> None:
    assert (await browser.get("/demo/meters/00000000000")).status_code == 404


@pytest.mark.parametrize(
    ("lang", "words"), [("en", "The simulated meters do not answer."), ("ar", "لا تجيب")]
)
async def test_without_its_simulator_the_town_says_so(
    town_url: str, street: Street, lang: str, words: str
) -> None:
    drn = street.town.installed[0].drn
    async with browse(town_url, "http://127.0.0.1:9") as client:
        town = await client.get(f"/?lang={lang}")
        assert (town.status_code, words in town.text) == (200, True)
        meter = await client.get(f"/demo/meters/{drn}?lang={lang}")
        assert (meter.status_code, words in meter.text) == (503, True)
        cut = await send(client, f"/demo/network/TX-1/power?lang={lang}", power="off")
        assert (cut.status_code, words in cut.text) == (200, True)


async def test_outside_demo_mode_there_is_no_town(town_url: str, street: Street) -> None:
    async with browse(town_url, street.url, demo=False) as client:
        for path in ("/town", "/demo/sms", f"/demo/meters/{street.town.installed[0].drn}"):
            assert (await client.get(path)).status_code == 404, path
        assert "demo" not in (await client.get("/")).text


async def test_the_phones_show_the_newest_message_first_each_in_its_language(
    browser: httpx.AsyncClient, town_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(town_url) as conn:
        for key, language, body in (
            ("t1", "ar", "رمز الشحن\n1234"),
            ("t2", "en", "Your token <b>1234</b>"),
        ):
            await conn.execute(
                "INSERT INTO portal.message (idempotency_key, phone, kind, language, body)"
                " VALUES (%s, '+96890001001', 'token', %s, %s)",
                (key, language, body),
            )
    page = (await browser.get("/demo/sms?lang=en")).text
    assert page.index("Your token &lt;b&gt;") < page.index("رمز الشحن")
    assert 'lang="ar" dir="rtl"' in page
    alone = await browser.get("/demo/sms?part=messages", headers={"HX-Request": "true"})
    assert alone.text.strip().startswith("<ol")


async def test_what_the_store_reads(town_url: str, street: Street) -> None:
    async with await psycopg.AsyncConnection.connect(town_url) as conn:
        nodes = await town_store.list_nodes(conn)
        assert {node.code for node in nodes} == set(street.town.node_by_code)
        known: set[str | None] = {None}
        for node in nodes:
            assert node.parent_code in known, "parents come first"
            known.add(node.code)
        first = await town_store.find_first_place(conn)
        assert first is not None
        assert (first.drn, first.customer_name_en) == (
            street.town.meters[0].drn,
            street.town.customers[0].name_en,
        )
        spare = await town_store.find_place(conn, street.town.spares[1].drn)
        assert spare is not None
        assert (spare.usage_point, spare.node_code, spare.customer_id) == (None, None, None)
        assert await town_store.find_place(conn, "00000000000") is None
        assert await town_store.find_newest_vend(conn) is None


# -- the pure parts -------------------------------------------------------------------------------------------


def node(code: str, parent: str | None, depth: int) -> NodeRow:
    return NodeRow(code, parent, "feeder", "electricity", code, code, depth)


def face(drn: str, at: str | None, *, powered: bool = True, commodity: str = "electricity") -> Face:
    return Face(drn, commodity, "mqtt", "E1", [], 0, 0, 0, 1, "none", "green", False, powered, powered, at)


def test_a_cut_kills_what_is_below_and_counts_go_up() -> None:
    nodes = [
        node("S", None, 0),
        node("F1", "S", 1),
        node("F2", "S", 1),
        node("T1", "F1", 2),
        node("T2", "F2", 2),
    ]
    faces = [face("1", "T1", powered=False), face("2", "T1", powered=False), face("3", "T2"), face("4", None)]
    found = {b.node.code: b for b in branches(nodes, {"S": True, "F1": False}, faces)}
    assert list(found) == ["S", "F1", "T1", "F2", "T2"], "each branch stands under its own"
    assert {code for code, b in found.items() if not b.is_fed} == {"F1", "T1"}
    assert found["T1"].is_on, "its own switch is closed"
    assert (found["S"].meters, found["S"].alive) == (3, 1)
    assert (found["F1"].meters, found["F1"].alive) == (2, 0)


def test_filters() -> None:
    faces = [face("1", "T1"), face("2", "Z1", commodity="water"), face("3", None)]
    assert [f.drn for f in chosen(faces, "all")] == ["1", "2", "3"]
    assert [f.drn for f in chosen(faces, "electricity")] == ["1", "3"]
    assert [f.drn for f in chosen(faces, "shelf")] == ["3"]
    assert [f.drn for f in chosen(faces, "T1")] == ["1"]


def progress(outcome: Outcome, reached: int) -> Progress:
    times = [NOW + timedelta(seconds=n) if n < reached else None for n in range(len(Stage))]
    return Progress(outcome, tuple(map(StageTime, Stage, times)), None, None)


@pytest.mark.parametrize(
    ("outcome", "reached", "looks"),
    [
        (Outcome.POWERED, 7, ["done"] * 7),
        (Outcome.PAYING, 1, ["done", "now", "", "", "", "", ""]),
        (Outcome.DECLINED, 1, ["done", "bad"]),
        (Outcome.REJECTED, 5, ["done"] * 5 + ["bad"]),
    ],
)
def test_the_steps_of_a_sale(outcome: Outcome, reached: int, looks: list[str]) -> None:
    assert [step.look for step in sale_steps(progress(outcome, reached))] == looks


def test_every_answer_and_every_stage_has_words_in_both_languages() -> None:
    assert set(RESULT_WORDS) == {result.value for result in TokenResult}
    assert set(STAGE_WORDS) == set(Stage)
    arabic = load_languages()["ar"]
    for words in (*RESULT_WORDS.values(), *STAGE_WORDS.values(), *STOPPED_WORDS.values()):
        assert arabic._(words) != words
