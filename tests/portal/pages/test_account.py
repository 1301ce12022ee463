import re

import pytest

from portal.access import SESSION_COOKIE
from tests.billing.world import make_house, make_tariffs
from tests.portal.visitor import PASSWORD, visiting

TYPED = "٩٠٠٠ ٠٠٠١"
PHONE = "+96890000001"


async def house_in(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
        return await make_house(conn)


async def code_in(pool) -> str:
    async with pool.connection() as conn:
        row = await (
            await conn.execute("SELECT body FROM portal.message ORDER BY id DESC LIMIT 1")
        ).fetchone()
    return re.search(r"\d{6}", row[0])[0]


async def test_a_subscriber_signs_in_with_the_code_and_goes_where_she_wanted(database_url, pool) -> None:
    await house_in(pool)
    async with visiting(database_url) as visitor:
        sent = await visitor.post("/sign-in", {"phone": TYPED, "next": "/my?x=1"})
        assert sent.status_code == 200
        answer = await visitor.post(
            "/sign-in/code", {"phone": PHONE, "code": await code_in(pool), "next": "/my?x=1"}
        )
        assert (answer.status_code, answer.headers["location"]) == (303, "/my?x=1")
        cookie = answer.headers["set-cookie"]
        assert SESSION_COOKIE in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        home = await visitor.get("/my")
        assert home.status_code == 200
        assert "Salim" in home.text
        out = await visitor.post("/sign-out")
        assert out.status_code == 303
        assert (await visitor.get("/my")).status_code == 303


async def test_a_known_and_an_unknown_phone_get_the_same_answer(database_url, pool) -> None:
    await house_in(pool)
    async with visiting(database_url) as visitor:
        known = await visitor.post("/sign-in", {"phone": "90000001"})
        unknown = await visitor.post("/sign-in", {"phone": "90000002"})
        assert known.status_code == unknown.status_code == 200
        assert known.text.replace("0001", "0002") == unknown.text
        wrong = [
            (await visitor.post("/sign-in/code", {"phone": phone, "code": "000000"})).text
            for phone in (PHONE, "+96890000002")
        ]
        assert wrong[0].replace("0001", "0002") == wrong[1]


async def test_codes_for_one_phone_are_limited_whether_it_is_known_or_not(database_url, pool) -> None:
    await house_in(pool)
    async with visiting(database_url) as visitor:
        for phone in ("90000001", "90000009"):
            answers = [(await visitor.post("/sign-in", {"phone": phone})).status_code for _ in range(6)]
            assert answers == [200] * 5 + [429]
        limited = await visitor.post("/sign-in", {"phone": "90000001"})
        assert int(limited.headers["retry-after"]) > 0


async def test_guessing_a_code_ends_in_a_limit(database_url, pool) -> None:
    await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.post("/sign-in", {"phone": "90000001"})
        right = await code_in(pool)
        wrong = "000000" if right != "000000" else "111111"
        for _ in range(5):
            answer = await visitor.post("/sign-in/code", {"phone": PHONE, "code": wrong})
            assert answer.status_code == 422
        dead = await visitor.post("/sign-in/code", {"phone": PHONE, "code": right})
        assert dead.status_code == 422, "after five wrong tries the right code is dead too"
        answers = [
            (await visitor.post("/sign-in/code", {"phone": PHONE, "code": wrong})).status_code
            for _ in range(10)
        ]
        assert answers[-1] == 429


@pytest.mark.parametrize("phone", ["", "12", "not a phone"])
async def test_what_is_no_phone_is_said_beside_the_field(database_url, phone) -> None:
    async with visiting(database_url) as visitor:
        answer = await visitor.post("/sign-in", {"phone": phone})
        assert answer.status_code == 422
        assert 'aria-invalid="true"' in answer.text
        assert "eight digits" in answer.text


async def test_staff_sign_in_and_a_wrong_name_looks_like_a_wrong_password(database_url) -> None:
    async with visiting(database_url) as visitor:
        await visitor.be_staff("agent")
        await visitor.post("/sign-out")
        wrong = await visitor.post("/sign-in/staff", {"username": "agent", "password": "x"})
        nobody = await visitor.post("/sign-in/staff", {"username": "agenx", "password": "x"})
        assert wrong.status_code == nobody.status_code == 422
        assert wrong.text.replace("agent", "agenx") == nobody.text
        right = await visitor.post("/sign-in/staff", {"username": " Agent ", "password": PASSWORD})
        assert (right.status_code, right.headers["location"]) == (303, "/desk")


async def test_staff_passwords_cannot_be_tried_for_ever(database_url) -> None:
    async with visiting(database_url) as visitor:
        answers = [
            (await visitor.post("/sign-in/staff", {"username": "agent", "password": "x"})).status_code
            for _ in range(11)
        ]
        assert answers == [422] * 10 + [429]


async def test_sign_in_leads_nowhere_else(database_url) -> None:
    async with visiting(database_url) as visitor:
        await visitor.be_staff("agent")
        await visitor.post("/sign-out")
        answer = await visitor.post(
            "/sign-in/staff", {"username": "agent", "password": PASSWORD, "next": "//evil.test"}
        )
        assert answer.headers["location"] == "/desk"


async def test_a_new_session_replaces_the_old_one(database_url, pool) -> None:
    await house_in(pool)
    async with visiting(database_url, demo=True) as visitor:
        first = await visitor.post("/demo/sign-in/subscriber")
        assert first.headers["location"] == "/my"
        old = visitor.http.cookies[SESSION_COOKIE]
        await visitor.post("/demo/sign-in/subscriber")
        assert visitor.http.cookies[SESSION_COOKIE] != old
        visitor.http.cookies.clear()
        visitor.http.cookies.set(SESSION_COOKIE, old)
        assert (await visitor.get("/my")).status_code == 303


async def test_one_click_sign_in_is_there_only_in_the_demo(database_url, pool) -> None:
    await house_in(pool)
    async with visiting(database_url) as visitor:
        assert (await visitor.post("/demo/sign-in/subscriber")).status_code == 404
    async with visiting(database_url, demo=True) as visitor:
        for persona in ("king", "engineer"):  # no such persona; none made yet
            assert (await visitor.post(f"/demo/sign-in/{persona}")).status_code == 404


async def test_the_language_is_switched_on_the_same_page_and_remembered(database_url) -> None:
    async with visiting(database_url, language="ar") as visitor:
        arabic = await visitor.get("/sign-in?next=/my")
        assert '<html lang="ar" dir="rtl">' in arabic.text
        link = re.search(r'href="(/sign-in\?[^"]*lang=en)"', arabic.text)[1].replace("&amp;", "&")
        visitor.http.cookies.clear()
        english = await visitor.get(link)
        assert '<html lang="en" dir="ltr">' in english.text
        assert 'value="/my"' in english.text
        assert '<html lang="en" dir="ltr">' in (await visitor.get("/sign-in")).text


async def test_the_language_is_kept_through_a_redirect(database_url, pool) -> None:
    house = await house_in(pool)
    async with visiting(database_url, language="ar") as visitor:
        answer = await visitor.get("/sign-in/code?lang=en")
        assert answer.headers["location"] == "/sign-in?lang=en"
        await visitor.be_subscriber(house.customer_id)
        visitor.http.cookies.delete("raseed_lang")
        assert '<html lang="ar"' in (await visitor.get("/my")).text, "her own language"
        assert (await visitor.get("/?lang=en")).status_code == 303
        assert '<html lang="en"' in (await visitor.get("/my")).text


async def test_the_first_page_sends_who_is_signed_in_home(database_url) -> None:
    async with visiting(database_url) as visitor:
        assert (await visitor.get("/")).status_code == 200
        await visitor.be_staff("engineer")
        assert (await visitor.get("/")).headers["location"] == "/field"
        assert (await visitor.get("/sign-in?next=/field/x")).headers["location"] == "/field/x"
