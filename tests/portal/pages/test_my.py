import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.billing.world import make_house, make_tariffs
from tests.portal.test_my_store import readings
from tests.portal.visitor import visiting


def bare(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text)).replace("\u00a0", " ")


async def house_in(pool, **kwargs):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn, **kwargs)


async def state(pool, house, **columns) -> None:
    values = {"last_seen_at": datetime.now(UTC), "state_at": datetime.now(UTC), "link_up": True, **columns}
    async with pool.connection() as conn:
        await conn.execute("DELETE FROM meter_gateway.meter_state")
        await conn.execute(
            f"INSERT INTO meter_gateway.meter_state (meter_id, {', '.join(values)})"
            f" VALUES (%s{', %s' * len(values)})",
            (house.meter_id, *values.values()),
        )


async def two_weeks(pool, house, daily: int) -> None:
    now = datetime.now(UTC)
    async with pool.connection() as conn:
        await readings(
            conn,
            house.meter_id,
            [(now - timedelta(days=14) + timedelta(hours=12 * n), daily * n // 2) for n in range(29)],
        )


@pytest.mark.parametrize(
    ("credit", "daily", "words"),
    [
        (0, 10_000, "NO CREDIT"),
        (5_000, 10_000, "BELOW 1 DAY"),
        (10_500, 10_000, "1 DAY"),
        (75_000, 10_000, "7 DAYS"),
        (5_000_000, 10_000, "OVER 99 DAYS"),
        (5_000, None, "NO DATA"),
        (None, 10_000, "NO DATA"),
    ],
)
async def test_the_home_page_says_how_long_the_credit_lasts(database_url, pool, credit, daily, words) -> None:
    house = await house_in(pool)
    await state(pool, house, credit=credit, supply_on=True, relay=1)
    if daily:
        await two_weeks(pool, house, daily)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        text = bare((await visitor.get("/my")).text)
        assert f"Lasts about {words} " in text
        assert "Supply on" in text
        assert "Connected" in text


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"relay": 0, "relay_reason": "no_credit"}, "Off: no credit"),
        ({"relay": 0, "relay_reason": "order"}, "Off by order"),
        ({"relay": 0, "relay_reason": "tamper"}, "Off: cover opened"),
        ({"relay": 0, "relay_reason": "overload"}, "Off: too much load"),
        ({"relay": 2, "relay_reason": "none"}, "press the button"),
        ({"relay": 1, "supply_on": False}, "No supply from the network"),
        ({"link_up": False}, "Not reachable"),
    ],
)
async def test_the_tile_says_what_is_wrong(database_url, pool, columns, words) -> None:
    house = await house_in(pool)
    await state(pool, house, **columns)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        assert words in bare((await visitor.get("/my")).text)


@pytest.mark.parametrize(
    ("view", "bars"), [("hours", 24), ("day", 24), ("days", 60), ("year", 53), ("months", 13)]
)
@pytest.mark.parametrize("language", ["ar", "en"])
async def test_consumption_is_drawn_and_written_as_a_table(database_url, pool, view, bars, language) -> None:
    house = await house_in(pool)
    await two_weeks(pool, house, 10_000)
    async with visiting(database_url, language=language) as visitor:
        await visitor.be_subscriber(house.customer_id)
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
        text = (await visitor.get(f"/my/meters/{house.drn}?view={view}&day={yesterday}")).text
        assert text.count("<title>") == 1 + bars
        assert text.count("<tr><td data-label") == bars
        if view == "days":
            assert "gap-fill" in text, "days before the first reading are gaps, not zeros"
            assert "10.0\u00a0" in text


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("view=century", 422),
        ("view=hours&hour=24", 422),
        ("view=hours&day=2020-01-01&hour=0", 200),
        ("view=year&day=2020-01-01", 200),
        ("view=day&day=yesterday", 422),
        ("view=day&day=9999-12-31", 200),
        ("view=months&day=0001-01-01", 200),
        ("day=2026-02-30", 422),
    ],
)
async def test_odd_periods_are_never_a_500(database_url, pool, query, status) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        assert (await visitor.get(f"/my/meters/{house.drn}?{query}")).status_code == status


@pytest.mark.parametrize(
    ("columns", "words", "link"),
    [
        ({"relay": 0, "relay_reason": "no_credit", "credit": 0}, "The credit is used up", "/buy"),
        ({"relay": 1, "supply_on": True}, "Supply is on", "/my/tickets/new"),
        ({"link_up": False}, "The meter does not answer", "/my/tickets/new"),
    ],
)
async def test_why_there_is_no_supply(database_url, pool, columns, words, link) -> None:
    house = await house_in(pool)
    await state(pool, house, **columns)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        text = (await visitor.get(f"/my/meters/{house.drn}/supply")).text
        assert words in bare(text)
        assert link in text.split('id="answer"')[1]
        part = await visitor.get(f"/my/meters/{house.drn}/supply", headers={"HX-Request": "true"})
        assert words in bare(part.text)
        assert "<html" not in part.text


async def test_a_customer_without_a_meter_is_told_what_to_do(database_url, pool) -> None:
    house = await house_in(pool)
    async with pool.connection() as conn:
        await conn.execute("UPDATE billing.customer_agreement SET valid_to = now()")
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        assert "No meter is registered" in (await visitor.get("/my")).text
