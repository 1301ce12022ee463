import re

import pytest

from tests.billing.world import make_house, make_tariffs
from tests.portal.sales import one
from tests.portal.visitor import visiting

DIGITS = "12345678901234567890"


async def house_in(pool, number=1, **kwargs):
    async with pool.connection() as conn:
        if number == 1:
            await make_tariffs(conn)
        return await make_house(conn, number, **kwargs)


async def enter(visitor, house, typed, key="the form's key"):
    return await visitor.post(f"/my/meters/{house.drn}/token", {"token": typed, "form_key": key})


@pytest.mark.parametrize(
    "typed",
    [
        DIGITS,
        "1234 5678 9012 3456 7890",
        "1234-5678-9012-3456-7890",
        "١٢٣٤ ٥٦٧٨ ٩٠١٢ ٣٤٥٦ ٧٨٩٠",
        "\u20661234\u00a05678\u00a09012\u00a03456\u00a07890\u2069",
    ],
)
async def test_a_token_goes_to_the_meter_however_it_is_typed(database_url, pool, typed) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        answer = await enter(visitor, house, typed)
        assert answer.status_code == 303
        assert await one(pool, "SELECT argument FROM meter_gateway.meter_command") == DIGITS
        again = await enter(visitor, house, typed)
        assert again.headers["location"] == answer.headers["location"], "a double click sends it once"
        waiting = await visitor.get(answer.headers["location"])
        assert "Waiting for the meter" in waiting.text
        assert "every 2s" in waiting.text
        assert DIGITS not in waiting.text


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "missing"),
        ("1234", "missing"),
        (DIGITS + "1", "too many"),
        ("12345678901234567890a", "digits only"),
        ("x" * 390, "digits only"),
    ],
)
async def test_what_is_no_token_is_said_beside_the_field_and_never_sent(
    database_url, pool, typed, words
) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        answer = await enter(visitor, house, typed)
        assert answer.status_code == 422
        assert words in answer.text
        assert await one(pool, "SELECT count(*) FROM meter_gateway.meter_command") == 0


async def test_a_meter_without_a_link_gets_its_groups_on_the_screen(database_url, pool) -> None:
    house = await house_in(pool, link="keypad")
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        answer = await enter(visitor, house, DIGITS)
        assert answer.status_code == 200
        assert "1234\u00a05678\u00a09012\u00a03456\u00a07890" in answer.text
        assert await one(pool, "SELECT count(*) FROM meter_gateway.meter_command") == 0


@pytest.mark.parametrize(
    ("state", "result", "words"),
    [
        ("VERIFIED", "accept", "Your meter accepted the token"),
        ("VERIFIED", "used_error", "has this token already"),
        ("REJECTED", "crc_error", "do not fit this meter"),
        ("REJECTED", "LOCKED_OUT", "Too many wrong tries"),
        ("REJECTED", "something_new", "did not take the token"),
        ("EXPIRED", None, "was not reached"),
    ],
)
async def test_the_meters_answer_is_said_in_words(database_url, pool, state, result, words) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        path = (await enter(visitor, house, DIGITS)).headers["location"]
        async with pool.connection() as conn:
            await conn.execute(
                "UPDATE meter_gateway.meter_command SET state = %s, result = jsonb_build_object('result', %s::text)",
                (state, result),
            )
        text = (await visitor.get(path)).text
        assert words in re.sub("&#39;", "'", text)
        assert "every 2s" not in text


async def test_another_persons_command_is_not_there(database_url, pool) -> None:
    mine, other = await house_in(pool), await house_in(pool, 2)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(mine.customer_id)
        path = (await enter(visitor, mine, DIGITS)).headers["location"]
        await visitor.be_subscriber(other.customer_id)
        number = path.rsplit("/", 1)[1]
        for address in (path, f"/my/meters/{other.drn}/token/{number}", f"/my/meters/{other.drn}/token/999"):
            assert (await visitor.get(address)).status_code == 404
        async with pool.connection() as conn:
            await conn.execute("UPDATE meter_gateway.meter_command SET requested_by = 'muna'")
        await visitor.be_subscriber(mine.customer_id)
        assert (await visitor.get(path)).status_code == 404, "what staff ordered is not hers to follow"


async def test_typing_at_random_ends_in_a_limit_before_the_meter_locks(database_url, pool) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        answers = [(await enter(visitor, house, f"{n:020d}", f"form key {n}")).status_code for n in range(11)]
        assert answers == [303] * 10 + [429]


@pytest.mark.parametrize("number", ["0", "-1", "99999999999999999999", "x"])
async def test_odd_command_numbers_are_never_a_500(database_url, pool, number) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        answer = await visitor.get(f"/my/meters/{house.drn}/token/{number}")
        assert answer.status_code in {404, 422}
