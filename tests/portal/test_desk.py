"""The agent's pages as a person walks them: search, customer, request, interruption, and who may not come in."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from portal.contact_centre import desk_store, ticket_store
from portal.contact_centre.desk_store import fold
from portal.contact_centre.open_ticket import Caller, NewTicket, open_ticket
from portal.contact_centre.ticket import Channel, TicketKind
from portal.outages import watch
from portal.outages.infer import Evidence, Rules
from portal.outages.outage import OutageState
from portal.pages import desk_outages, desk_tickets
from tests.portal.small_town import NOW, build, languages
from tests.portal.visitor import visiting

TOKEN = "12345678901234567890"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture
async def town(conn):
    built = await build(conn)
    await conn.commit()
    return built


@pytest.fixture
async def agent(database_url, town):
    async with visiting(database_url) as visitor:
        await visitor.be_staff("agent")
        yield visitor


async def a_ticket(town, meter="a1", kind=TicketKind.NO_SUPPLY, key="form-0001"):
    opened = await open_ticket(
        town.conn,
        caller=Caller(town.customers[meter], town.phones[meter], "en"),
        new=NewTicket(key, kind, Channel.WEB, "It is dark", "Since an hour", town.meters[meter]),
        created_by=None,
        now=datetime.now(UTC),
        languages=languages(),
    )
    await town.conn.commit()
    return opened.ticket


async def a_token(town, meter="a1", purpose="credit"):
    cur = await town.conn.execute(
        "INSERT INTO billing.token (meter_id, base_date, tid, class, subclass, units_tenths, digits, purpose,"
        " issued_by, issued_at) VALUES (%s, 2014, 5, 0, 0, 125, %s, %s, 'worker', %s) RETURNING id",
        (town.meters[meter], TOKEN, purpose, NOW),
    )
    (token_id,) = await cur.fetchone()
    await town.conn.commit()
    return token_id


async def an_outage(town):
    await town.gasp("a1", "a2", at=NOW)
    await watch.evaluate(town.conn, now=NOW + timedelta(minutes=1), rules=Rules(), languages=languages())
    await town.conn.commit()


def key_on(page):
    return unescape(re.search(r'name="form_key" value="([^"]+)"', page.text)[1])


PAGES = ["/desk", "/desk?q=salim", "/desk/customers/{c}", "/desk/meters/{drn}", "/desk/tickets",
         "/desk/tickets/{r}", "/desk/outages", "/desk/outages/1"]  # fmt: skip


def filled(path, town, ticket):
    return path.format(c=town.customers["a1"], drn=town.drns["a1"], r=ticket.reference)


@pytest.mark.parametrize("language", ["ar", "en"])
async def test_every_page_opens_in_both_languages(agent, town, language, caplog):
    ticket = await a_ticket(town)
    await a_token(town)
    await an_outage(town)
    for path in PAGES:
        place = filled(path, town, ticket)
        page = await agent.get(place + ("&" if "?" in place else "?") + f"lang={language}")
        assert page.status_code == 200, path
        assert f'lang="{language}"' in page.text
    assert "no Arabic for" not in caplog.text


@pytest.mark.parametrize("role", ["subscriber", "engineer", None])
async def test_others_do_not_come_in(database_url, town, role):
    ticket = await a_ticket(town)
    await an_outage(town)
    async with visiting(database_url) as visitor:
        if role == "subscriber":
            await visitor.be_subscriber(town.customers["a1"])
        elif role:
            await visitor.be_staff(role)
        for path in PAGES:
            assert (await visitor.get(filled(path, town, ticket))).status_code == (403 if role else 303)
        for path in (
            f"/desk/customers/{town.customers['a1']}/tickets",
            f"/desk/tickets/{ticket.reference}/reply",
            f"/desk/tickets/{ticket.reference}/resolve",
            "/desk/outages/1/confirm",
            "/desk/outages/1/restore",
            "/desk/tokens/1/reveal",
        ):
            answer = await visitor.post(path, {"text": "x", "form_key": "x" * 10})
            assert answer.status_code == (403 if role else 303)
    entries = await ticket_store.list_entries(town.conn, ticket.id)
    assert "reply" not in [entry.kind for entry in entries]


@pytest.mark.parametrize(
    "typed",
    [
        "90001001",
        "+968 9000 1001",
        "٩٠٠٠١٠٠١",
        "04000000",
        "الحارثي 1",
        "سالم",
        "salim al harthy",
        "C-0001",
        "c-0001",
    ],
)
async def test_a_customer_is_found_however_they_are_asked_for(agent, town, typed):
    page = await agent.get("/desk", params={"q": typed})
    assert f"/desk/customers/{town.customers['a1']}" in page.text


@pytest.mark.parametrize("typed", ["zzz", "%", "_", "00", "'; DROP TABLE", "\\", "🙂", "x" * 200])
async def test_odd_searches_find_nobody_and_break_nothing(agent, typed):
    page = await agent.get("/desk", params={"q": typed})
    assert page.status_code == 200
    assert "/desk/customers/" not in page.text


def test_spelling_variants_of_arabic_names_are_one():
    assert fold("أحمد") == fold("احمد")
    assert fold("فاطمة") == fold("فاطمه")
    assert fold("هدى") == fold("هدي")
    assert fold("سـالم") == fold("سالم")


async def test_names_are_found_across_spelling_variants(conn, town):
    await conn.execute(
        "UPDATE billing.customer SET name_ar = 'أحمد بن مُوسى' WHERE id = %s", (town.customers["a1"],)
    )
    for typed in ("احمد", "أحمد بن"):
        found = await desk_store.search_customers(conn, typed)
        assert [customer.id for customer in found] == [town.customers["a1"]]


async def test_a_reference_in_the_search_box_opens_the_request(agent, town):
    ticket = await a_ticket(town)
    for typed in (ticket.reference, ticket.reference.lower().replace("-", " ")):
        answer = await agent.get("/desk", params={"q": typed})
        assert answer.headers["location"] == f"/desk/tickets/{ticket.reference}"


async def test_an_agent_opens_answers_and_resolves_a_request(agent, town, conn):
    customer = f"/desk/customers/{town.customers['a1']}"
    form = {
        "form_key": key_on(await agent.get(customer)),
        "kind": "complaint",
        "channel": "phone",
        "meter_id": str(town.meters["a1"]),
        "subject": "Bill <b>too</b> high",
        "body": "See photo",
    }
    opened = await agent.post(f"{customer}/tickets", form)
    assert opened.status_code == 303
    again = await agent.post(f"{customer}/tickets", form)
    place = opened.headers["location"]
    assert again.headers["location"] == place
    page = await agent.get(place)
    assert "Bill &lt;b&gt;too&lt;/b&gt; high" in page.text
    assert "kept:" in page.text  # a call answered by a person is its first answer
    steps = (("assign", {}), ("note", {"text": "secret"}), ("reply", {"text": "Hello", "asks": "1"}))
    for step, data in steps:
        assert (await agent.post(f"{place}/{step}", data)).headers["location"] == place
    attached = await agent.post(f"{place}/attach", files={"file": ("photo.png", PNG, "image/png")})
    assert attached.headers["location"] == place
    refused = await agent.post(f"{place}/resolve", {"text": " "})
    assert refused.status_code == 422
    assert "written answer" in refused.text
    assert (await agent.post(f"{place}/resolve", {"text": "Corrected."})).status_code == 303
    page = await agent.get(place)
    for words in ("secret", "Hello", "Corrected.", "photo.png", "Resolved"):
        assert words in page.text
    late = await agent.post(f"{place}/reply", {"text": "One more"})
    assert late.status_code == 422
    assert "resolved already" in late.text
    file = re.search(rf"{re.escape(place)}/files/\d+", page.text)[0]
    download = await agent.get(file)
    assert download.content == PNG
    assert download.headers["content-disposition"].startswith("attachment")
    assert download.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"subject": ""}, 422),
        ({"body": " "}, 422),
        ({"body": "x" * 9000}, 422),
        ({"body": "a\x00b"}, 422),
        ({"kind": "nonsense"}, 422),
        ({"channel": "pigeon"}, 422),
        ({"meter_id": "999999"}, 404),
        ({"meter_id": "x"}, 404),
        ({"form_key": "x"}, 422),
    ],
)
async def test_a_bad_form_is_told_and_changes_nothing(agent, town, conn, change, status):
    customer = f"/desk/customers/{town.customers['a1']}"
    form = {
        "form_key": "k" * 16,
        "kind": "complaint",
        "channel": "phone",
        "meter_id": "",
        "subject": "Subject that was typed",
        "body": "Body",
    } | change
    answer = await agent.post(f"{customer}/tickets", form)
    assert answer.status_code == status
    assert await ticket_store.list_tickets(conn) == []


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.svg", b"<svg onload=alert(1)>", "JPEG, PNG"),
        ("x.png", b"", "empty"),
        ("x.png", PNG + bytes(2 * 1024 * 1024), "larger than 2 MB"),
    ],
)
async def test_a_bad_file_is_told(agent, town, name, content, words):
    ticket = await a_ticket(town)
    answer = await agent.post(
        f"/desk/tickets/{ticket.reference}/attach", files={"file": (name, content, "image/png")}
    )
    assert answer.status_code == 422
    assert words in answer.text


@pytest.mark.parametrize(
    "path", ["/desk/customers/999999", "/desk/meters/04000000099", "/desk/tickets/R26-000001-A",
             "/desk/tickets/nonsense", "/desk/outages/999999"]
)  # fmt: skip
async def test_what_is_not_there_is_a_plain_page(agent, path):
    assert (await agent.get(path)).status_code == 404


@pytest.mark.parametrize(
    "path", ["/desk/customers/x", "/desk/outages/0", "/desk/outages/99999999999999999999999"]
)
async def test_a_bad_number_in_an_address_is_no_server_fault(agent, path):
    assert (await agent.get(path)).status_code in {404, 422}


async def test_overdue_requests_stand_first_and_are_marked(agent, town, conn):
    slow = await a_ticket(town, "b1", TicketKind.COMPLAINT, "form-0002")
    late = await a_ticket(town)
    await conn.execute(
        "UPDATE portal.clock SET due_at = now() - interval '1 hour' WHERE ticket_id = %s", (late.id,)
    )
    await conn.commit()
    page = await agent.get("/desk/tickets")
    assert page.text.index(late.reference) < page.text.index(slow.reference)
    assert "1 request is overdue" in page.text
    assert "Overdue" in page.text


def test_every_state_and_evidence_of_an_outage_has_words():
    assert set(desk_outages.STATE_LABELS) == set(desk_outages.OUTAGE_TONES) == set(OutageState)
    assert set(desk_outages.EVIDENCE_WORDS) == set(Evidence)


async def test_a_file_is_handed_out_only_with_its_own_request(agent, town, conn):
    ticket, other = await a_ticket(town), await a_ticket(town, "b1", key="form-0002")
    await agent.post(
        f"/desk/tickets/{ticket.reference}/attach", files={"file": ("a;b.png", PNG, "image/png")}
    )
    (file_id,) = await (await conn.execute("SELECT id FROM portal.attachment")).fetchone()
    found = await desk_tickets.file_response(conn, ticket.id, file_id)
    assert found.headers["content-disposition"] == 'attachment; filename="ab.png"'
    assert (await agent.get(f"/desk/tickets/{other.reference}/files/{file_id}")).status_code == 404


class TestTokens:
    async def test_staff_read_masked_tokens(self, agent, town):
        await a_token(town)
        for path in (f"/desk/customers/{town.customers['a1']}", f"/desk/meters/{town.drns['a1']}"):
            page = (await agent.get(path)).text.replace("\u00a0", " ")
            assert "1234 •••• •••• •••• 7890" in page
            assert "5678 9012" not in page
            assert TOKEN not in page

    async def test_a_look_is_a_post_with_a_reason_and_is_written_down(self, agent, town, conn):
        token_id = await a_token(town)
        path = f"/desk/tokens/{token_id}/reveal"
        assert (await agent.get(path)).status_code == 405
        without = await agent.post(path, {"reason": "  "})
        assert without.status_code == 303
        shown = await agent.post(path, {"reason": "The SMS did not come"})
        assert "1234 5678 9012 3456 7890" in shown.text.replace("\u00a0", " ")
        assert shown.headers["cache-control"] == "no-store"
        cur = await conn.execute("SELECT token_id, reason FROM portal.token_reveal")
        assert await cur.fetchall() == [(token_id, "The SMS did not come")]
        story = await agent.get(f"/desk/meters/{town.drns['a1']}")
        assert "Token shown to staff" in story.text

    async def test_looking_has_a_limit(self, agent, town, conn):
        token_id = await a_token(town)
        for _ in range(10):
            assert (await agent.post(f"/desk/tokens/{token_id}/reveal", {"reason": "r"})).status_code == 200
        assert (await agent.post(f"/desk/tokens/{token_id}/reveal", {"reason": "r"})).status_code == 429
        cur = await conn.execute("SELECT count(*) FROM portal.token_reveal")
        assert (await cur.fetchone())[0] == 10

    @pytest.mark.parametrize(
        ("role", "purpose", "status"),
        [
            ("agent", "engineering", 403),
            ("supervisor", "engineering", 200),
            ("admin", "engineering", 200),
            ("engineer", "engineering", 403),
            ("agent", "credit", 200),
            ("agent", "key_change", 200),
        ],
    )
    async def test_engineering_tokens_are_shown_to_their_signers_only(
        self, database_url, town, conn, role, purpose, status
    ):
        token_id = await a_token(town, purpose=purpose)
        async with visiting(database_url) as visitor:
            await visitor.be_staff(role)
            shown = await visitor.post(f"/desk/tokens/{token_id}/reveal", {"reason": "a look"})
        assert shown.status_code == status
        assert ("1234 5678 9012 3456 7890" in shown.text.replace("\u00a0", " ")) == (status == 200)
        cur = await conn.execute("SELECT count(*) FROM portal.token_reveal")
        assert await cur.fetchone() == (int(status == 200),)

    async def test_no_such_token(self, agent):
        assert (await agent.post("/desk/tokens/99/reveal", {"reason": "r"})).status_code == 404


class TestOutages:
    async def test_the_page_names_the_place_the_meters_and_the_followers(self, agent, town):
        await an_outage(town)
        ticket = await a_ticket(town, "a4")
        page = await agent.get("/desk/outages/1")
        for words in ("transformer TX-1", town.drns["a1"], ticket.reference, "Probable", "No link"):
            assert words in page.text

    async def test_an_agent_confirms_and_only_a_supervisor_closes(self, agent, database_url, town):
        await an_outage(town)
        assert (await agent.post("/desk/outages/1/confirm")).status_code == 303
        assert "Confirmed" in (await agent.get("/desk/outages/1")).text
        assert (await agent.post("/desk/outages/1/note", {"text": "Crew 4 is out"})).status_code == 303
        assert "Crew 4 is out" in (await agent.get("/desk/outages/1")).text
        for step in ("restore", "cancel"):
            assert (await agent.post(f"/desk/outages/1/{step}")).status_code == 403
        async with visiting(database_url) as supervisor:
            await supervisor.be_staff("supervisor")
            assert (await supervisor.post("/desk/outages/1/restore")).status_code == 303
            again = await supervisor.post("/desk/outages/1/cancel")
            assert again.status_code == 303
            page = await supervisor.get("/desk/outages/1")
            assert "closed already" in page.text
            assert "Supply is back" in page.text
            assert "Not heard" in page.text

    async def test_a_no_supply_call_under_it_is_told_to_the_agent(self, agent, town):
        await an_outage(town)
        customer = f"/desk/customers/{town.customers['a4']}"
        page = await agent.get(customer)
        assert "Supply interruption in the area" in page.text
        opened = await agent.post(
            f"{customer}/tickets",
            {
                "form_key": key_on(page),
                "kind": "no_supply",
                "channel": "phone",
                "meter_id": str(town.meters["a4"]),
                "subject": "Dark",
                "body": "Dark",
            },
        )
        assert "no new report is needed" in (await agent.get(opened.headers["location"])).text


async def test_the_live_part_comes_alone_when_asked_for(agent, town):
    part = await agent.get(f"/desk/customers/{town.customers['a1']}", headers={"HX-Request": "true"})
    assert "<html" not in part.text
    assert "Credit" in part.text


async def test_the_timeline_has_earlier_pages(agent, town, conn):
    for minute in range(70):
        await town.event("a1", "3.12.0.257", NOW - timedelta(minutes=minute))
    await conn.commit()
    page = await agent.get(f"/desk/meters/{town.drns['a1']}")
    older = unescape(re.search(r'href="([^"]+before=[^"]+)"', page.text)[1]).partition("#")[0]
    rest = await agent.get(older)
    assert rest.status_code == 200
    assert page.text.count("Tamper alarm") + rest.text.count("Tamper alarm") == 70
    odd = await agent.get(f"/desk/meters/{town.drns['a1']}?before=2020-01-01T00:00:00")
    assert odd.status_code == 200
