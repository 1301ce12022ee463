"""Readings to look at: listed, explained, decided; by engineers and supervisors, in both languages."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from portal.finding_words import WORDS
from portal.pages.readings import SPAN_MOST, window_of
from portal.readings_store import FindingRow
from tests.portal.finding_world import finding_of, make_findings
from tests.portal.visitor import visiting


def flat(answer):
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).replace("\u00a0", " ").split())


async def one(pool, query, *values):
    async with pool.connection() as conn:
        return await (await conn.execute(query, values)).fetchone()


async def test_every_kind_is_listed_and_opens_in_both_languages(pool, database_url) -> None:
    await make_findings(pool)
    for language in ("en", "ar"):
        async with visiting(database_url, language=language) as visitor:
            await visitor.be_staff("engineer")
            answer = await visitor.get("/readings")
            assert answer.status_code == 200
            if language == "en":
                titles = {kind: WORDS[kind].title for kind in WORDS if kind != "gap"}
                assert [kind for kind, title in titles.items() if title not in flat(answer)] == []
                assert "while the meter reports 1,250 W" in flat(answer)
                assert "Never below 36.0 L/h" in flat(answer)
            pages = re.findall(r'href="(/readings/\d+)"', answer.text)
            assert len(pages) == 8
            for path in pages:
                assert (await visitor.get(path)).status_code == 200


async def test_the_list_is_filtered_by_kind_meter_and_state(pool, database_url) -> None:
    town = await make_findings(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_staff("supervisor")
        for query, count in (
            ("?kind=leak", 1),
            (f"?meter={town.drns['c2']}", 2),
            ("?kind=leak&meter=99", 0),
            ("?kind=nonsense", 8),
            ("?state=closed", 1),
            ("?before=1", 0),
        ):
            answer = await visitor.get(f"/readings{query}")
            assert len(re.findall(r'class="row-link"', answer.text)) == count, query
        assert "Nothing of that kind." in flat(await visitor.get("/readings?kind=leak&meter=99"))


@pytest.mark.parametrize("query", ["?state=all", "?before=0", "?before=x", f"?kind={'x' * 30}"])
async def test_nonsense_is_refused_politely(database_url, query) -> None:
    async with visiting(database_url) as visitor:
        await visitor.be_staff("engineer")
        assert (await visitor.get(f"/readings{query}")).status_code == 422
        assert "Nothing needs a look" in flat(await visitor.get("/readings"))
        assert (await visitor.get("/readings/4711")).status_code == 404


async def test_a_reason_closes_and_is_needed(pool, database_url) -> None:
    await make_findings(pool)
    async with pool.connection() as conn:
        leak = await finding_of(conn, "leak")
    async with visiting(database_url) as visitor:
        await visitor.be_staff("supervisor")
        await visitor.post(f"/readings/{leak}/explain", {"reason": " \u0000 "})
        assert "Say why" in flat(await visitor.get(f"/readings/{leak}"))
        await visitor.post(f"/readings/{leak}/explain", {"reason": "a bakery,\u0000 day and night"})
        page = flat(await visitor.get(f"/readings/{leak}"))
        assert "Explained" in page
        assert "supervisor · a bakery, day and night" in page
        await visitor.post(f"/readings/{leak}/explain", {"reason": "again"})
        assert "Somebody was faster" in flat(await visitor.get(f"/readings/{leak}"))
    assert await one(
        pool, "SELECT closed_by, reason FROM meter_gateway.reading_finding WHERE id = %s", leak
    ) == (
        "supervisor",
        "a bakery, day and night",
    )


async def test_a_counter_is_believed_as_it_was_shown(pool, database_url) -> None:
    town = await make_findings(pool)
    async with pool.connection() as conn:
        finding = await finding_of(conn, "counter")
    path = f"/readings/{finding}"
    async with visiting(database_url) as visitor:
        await visitor.be_staff("engineer")
        page = await visitor.get(path)
        shown = dict(re.findall(r'name="(from_at|base_value)" value="([^"]+)"', page.text))
        assert shown["base_value"] == "640"
        assert "Stay in doubt 1" in flat(page)
        asked = {"cause": "reset", "reason": "seen on the display", **shown}
        await visitor.post(f"{path}/explain", {"reason": "never mind"})
        assert "ended by a decision" in flat(await visitor.get(path))
        await visitor.post(f"{path}/believe", asked | {"base_value": "641"})
        assert "Other readings came meanwhile" in flat(await visitor.get(path))
        await visitor.post(f"{path}/believe", asked | {"from_at": "yesterday"})
        assert "The form has expired" in flat(await visitor.get(path))
        assert (await visitor.post(f"{path}/believe", asked | {"cause": "magic"})).status_code == 422
        await visitor.post(f"{path}/believe", asked)
        page = flat(await visitor.get(path))
        assert "The counter is believed from there." in page
        assert "before, it said 9,595.5 kWh" in page
    state = "SELECT counter, counter_suspect FROM meter_gateway.meter_state WHERE meter_id = %s"
    assert await one(pool, state, town.meters["a1"]) == (4_000, False)


async def test_two_values_are_decided_one_by_one(pool, database_url) -> None:
    await make_findings(pool)
    async with pool.connection() as conn:
        finding = await finding_of(conn, "conflict")
    async with visiting(database_url) as visitor:
        await visitor.be_staff("supervisor")
        page = await visitor.get(f"/readings/{finding}")
        forms = sorted(re.findall(rf'action="(/readings/{finding}/conflicts/\d+)"', page.text))
        assert len(forms) == 2
        assert (await visitor.post(forms[0], {"verdict": "both", "reason": "x"})).status_code == 422
        await visitor.post(forms[0], {"verdict": "accept", "reason": "the display says so"})
        assert "Still open" in flat(await visitor.get(f"/readings/{finding}"))
        await visitor.post(forms[1], {"verdict": "keep", "reason": "a late repeat"})
        page = flat(await visitor.get(f"/readings/{finding}"))
        assert "Decided" in page
        assert "Decided by supervisor" in page
        assert (
            await visitor.post(f"/readings/{finding}/conflicts/999", {"verdict": "keep", "reason": "x"})
        ).status_code == 404


async def test_two_values_are_decided_together(pool, database_url) -> None:
    await make_findings(pool)
    async with pool.connection() as conn:
        finding = await finding_of(conn, "conflict")
    path = f"/readings/{finding}"
    async with visiting(database_url) as visitor:
        await visitor.be_staff("engineer")
        page = await visitor.get(path)
        assert "2 values wait for a decision" in flat(page)
        (newest,) = re.findall(r'name="upto_id" value="(\d+)"', page.text)
        assert (await visitor.post(f"{path}/keep", {"upto_id": "x", "reason": "x"})).status_code == 422
        await visitor.post(f"{path}/keep", {"upto_id": newest, "reason": "the clock stood still"})
        page = flat(await visitor.get(path))
        assert "Your decision is kept." in page
        assert "wait for a decision" not in page
        assert page.count("Decided by engineer") == 2
        await visitor.be_staff("agent")
        assert (await visitor.post(f"{path}/keep", {"upto_id": newest, "reason": "x"})).status_code == 403
    assert await one(
        pool, "SELECT outcome, reason FROM meter_gateway.reading_finding WHERE id = %s", finding
    ) == ("decided", "the clock stood still")


async def test_who_may_not(pool, database_url) -> None:
    await make_findings(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_staff("agent")
        assert (await visitor.get("/readings")).status_code == 403
        assert (await visitor.post("/readings/1/explain", {"reason": "x"})).status_code == 403


async def test_the_customer_sees_the_leak_and_no_other_finding(pool, database_url) -> None:
    town = await make_findings(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(town.customers["w1"])
        for path in ("/my", f"/my/meters/{town.drns['w1']}"):
            page = flat(await visitor.get(path))
            assert "Water never stops running here." in page
            assert "36.0 L/h" in page
        await visitor.be_subscriber(town.customers["a1"])
        assert "Water never stops" not in flat(await visitor.get("/my"))
        assert (await visitor.get("/readings")).status_code == 403


NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("began", "ended", "before", "after"),
    [
        (timedelta(hours=3), None, timedelta(days=1), timedelta()),
        (timedelta(days=9), None, timedelta(days=3), timedelta()),
        (timedelta(days=60), None, SPAN_MOST / 3, SPAN_MOST / 9),
        (timedelta(days=9), timedelta(days=8), timedelta(days=1), timedelta(hours=8)),
    ],
)
def test_the_stretch_of_a_chart(began, ended, before, after):
    finding = FindingRow(
        1, 1, "", "water", "mqtt", "", "", "gap", "counter", NOW - began, NOW - ended if ended else None,
        {}, NOW, None, None, None, "", None,
    )  # fmt: skip
    since, until = window_of(finding, NOW)
    end = min(NOW - (ended or timedelta()), NOW - began + SPAN_MOST)
    assert (finding.from_at - since, until - end) == (before, after)
