"""A subscriber's own requests: written, followed, answered back, and closed to everybody else."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from portal.contact_centre import answer_ticket, ticket_store
from portal.contact_centre.ticket import TicketState
from portal.outages import watch
from portal.outages.infer import Rules
from tests.portal.small_town import NOW, build, languages
from tests.portal.visitor import visiting

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture
async def town(conn):
    town = await build(conn)
    await conn.commit()
    return town


@pytest.fixture
async def salim(database_url, town):
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(town.customers["a1"])
        yield visitor


def key_on(page):
    return unescape(re.search(r'name="form_key" value="([^"]+)"', page.text)[1])


def form(town, page, **changes):
    return {
        "form_key": key_on(page),
        "kind": "no_supply",
        "drn": town.drns["a1"],
        "subject": "Dark <i>here</i>",
        "body": "Since noon",
    } | changes


async def written(salim, town, **changes):
    page = await salim.get("/my/tickets/new")
    answer = await salim.post("/my/tickets/new", form(town, page, **changes))
    return answer.headers["location"]


async def ticket_of(conn, place):
    await conn.rollback()
    found = await ticket_store.find_ticket(conn, place.rsplit("/", 1)[1])
    assert found is not None
    return found


@pytest.mark.parametrize("language", ["ar", "en"])
async def test_every_page_opens_in_both_languages(salim, town, language, caplog):
    place = await written(salim, town)
    for path in ("/my/tickets", "/my/story", "/my/tickets/new", "/my/tickets/new?kind=complaint", place):
        page = await salim.get(path + ("&" if "?" in path else "?") + f"lang={language}")
        assert page.status_code == 200, path
        assert f'dir="{"rtl" if language == "ar" else "ltr"}"' in page.text
    assert "no Arabic for" not in caplog.text


async def test_a_request_is_written_followed_and_answered_back(salim, town, conn):
    place = await written(salim, town)
    page = await salim.get(place)
    assert "Dark &lt;i&gt;here&lt;/i&gt;" in page.text
    assert "Its number is R" in page.text
    assert (await salim.post(f"{place}/message", {"text": "The lamp is red"})).headers["location"] == place
    sent = await salim.post(f"{place}/attach", files={"file": ("red lamp.png", PNG, "image/png")})
    assert sent.headers["location"] == place
    ticket = await ticket_of(conn, place)
    agent = await town.staff()
    common = {"ticket_id": ticket.id, "actor_id": agent, "now": datetime.now(UTC)}
    await answer_ticket.add_note(conn, text="internal words", **common)
    await answer_ticket.resolve(conn, text="A fuse was changed.", languages=languages(), **common)
    await conn.commit()
    page = await salim.get(place)
    for words in ("The lamp is red", "red lamp.png", "A fuse was changed.", "Resolved"):
        assert words in page.text
    assert "internal words" not in page.text
    assert "Huda" not in page.text  # who answered is ours to know
    file = re.search(rf"{re.escape(place)}/files/\d+", page.text)[0]
    assert (await salim.get(file)).content == PNG
    assert (await salim.post(f"{place}/message", {"text": "Dark again"})).status_code == 303
    assert (await ticket_of(conn, place)).state is TicketState.OPEN


async def test_after_14_days_the_page_asks_for_a_new_one(salim, town, conn):
    place = await written(salim, town)
    ticket = await ticket_of(conn, place)
    await ticket_store.mark_state(
        conn, ticket.id, TicketState.RESOLVED, datetime.now(UTC) - timedelta(days=15)
    )
    await conn.commit()
    refused = await salim.post(f"{place}/message", {"text": "Still dark"})
    assert refused.status_code == 422
    assert "more than 14 days ago" in refused.text


async def test_the_same_form_twice_is_one_request(salim, town, conn):
    page = await salim.get("/my/tickets/new")
    filled = form(town, page)
    first = await salim.post("/my/tickets/new", filled)
    again = await salim.post("/my/tickets/new", filled)
    assert first.headers["location"] == again.headers["location"]
    other = await salim.post("/my/tickets/new", filled | {"subject": "Something else"})
    assert other.status_code == 422
    assert len(await ticket_store.list_tickets(conn)) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"subject": " "}, 422),
        ({"body": ""}, 422),
        ({"kind": "x"}, 422),
        ({"drn": "other"}, 404),
        ({"drn": "9" * 40}, 422),
        ({"form_key": ""}, 422),
    ],
)
async def test_a_bad_form_keeps_what_was_typed_and_changes_nothing(salim, town, conn, change, status):
    if change.get("drn") == "other":
        change = {"drn": town.drns["b1"]}
    page = await salim.get("/my/tickets/new")
    answer = await salim.post("/my/tickets/new", form(town, page) | change)
    assert answer.status_code == status
    if "body" in change:
        assert "Dark &lt;i&gt;here" in answer.text
    assert await ticket_store.list_tickets(conn) == []


async def test_nobody_reaches_anothers_request(salim, database_url, town, conn):
    place = await written(salim, town)
    await salim.post(f"{place}/attach", files={"file": ("a.png", PNG, "image/png")})
    file = re.search(rf"{re.escape(place)}/files/\d+", (await salim.get(place)).text)[0]
    async with visiting(database_url) as stranger:
        for path in ("/my/tickets", place, file):
            assert (await stranger.get(path)).status_code == 303
        await stranger.be_subscriber(town.customers["b1"])
        assert place.rsplit("/", 1)[1] not in (await stranger.get("/my/tickets")).text
        assert (await stranger.get(place)).status_code == 404
        assert (await stranger.get(file)).status_code == 404
        assert (await stranger.post(f"{place}/message", {"text": "x"})).status_code == 404
        assert (
            await stranger.post(f"{place}/attach", files={"file": ("a.png", PNG, "image/png")})
        ).status_code == 404
    async with visiting(database_url) as staff:
        await staff.be_staff("agent")
        assert (await staff.get("/my/tickets")).status_code == 403
    entries = await ticket_store.list_entries(conn, (await ticket_of(conn, place)).id)
    assert [entry.kind for entry in entries] == ["opened", "attached"]


async def test_what_we_see_from_here_stands_before_the_form(salim, town, conn):
    await town.state("a1", datetime.now(UTC), relay=0, relay_reason="no_credit", credit=0)
    await conn.commit()
    page = await salim.get(f"/my/tickets/new?meter={town.drns['a1']}")
    assert "The credit is used up" in page.text
    assert f"/my/meters/{town.drns['a1']}/buy" in page.text


async def test_a_report_under_a_known_interruption_follows_it(salim, town, conn):
    await town.gasp("a1", "a2", at=NOW)
    await watch.evaluate(conn, now=NOW + timedelta(minutes=1), rules=Rules(), languages=languages())
    await conn.commit()
    assert "Supply interruption in the area" in (await salim.get("/my/tickets/new")).text
    place = await written(salim, town)
    page = await salim.get(place)
    assert "follows it" in page.text
    assert "Joined to a supply interruption" in page.text
    assert (await ticket_of(conn, place)).outage_id is not None


async def test_the_story_is_ones_own_and_public(salim, database_url, town, conn):
    place = await written(salim, town)
    ticket = await ticket_of(conn, place)
    await answer_ticket.add_note(
        conn, ticket_id=ticket.id, text="internal words", actor_id=await town.staff(), now=NOW
    )
    await town.event("a1", "3.12.0.257", NOW)
    await town.event("b1", "3.26.0.85", NOW)
    await conn.commit()
    page = await salim.get("/my/story")
    for words in (ticket.reference, "Tamper alarm", town.drns["a1"]):
        assert words in page.text
    for words in ("internal words", town.drns["b1"], "staff only"):
        assert words not in page.text
    odd = await salim.get("/my/story?before=x")
    assert odd.status_code == 422
    async with visiting(database_url) as staff:
        await staff.be_staff("supervisor")
        assert (await staff.get("/my/story")).status_code == 403


async def test_writing_has_a_limit(salim, town):
    place = await written(salim, town)
    codes = [(await salim.post(f"{place}/message", {"text": f"m{n}"})).status_code for n in range(30)]
    assert codes[-1] == 429
    assert set(codes[:-1]) == {303}


@pytest.mark.parametrize("reference", ["R26-000001-A", "x", "R26-999999-Z", "%00"])
async def test_what_is_not_there_is_a_plain_page(salim, reference):
    assert (await salim.get(f"/my/tickets/{reference}")).status_code == 404
