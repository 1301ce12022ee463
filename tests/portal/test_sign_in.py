from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from portal import login_store, message_store, sign_in
from portal.i18n import load_languages
from portal.session_store import delete_expired_sessions, delete_session, find_session, session_hash
from tests.billing.world import make_house, make_tariffs

NOW = datetime.now(UTC)
KEY = "k" * 20
PHONE = "+96890000001"  # the world's house 1


@pytest.mark.parametrize(
    "typed",
    [
        "9123 4567",
        "91234567",
        "+968 9123 4567",
        "00968-9123-4567",
        "96891234567",
        "٩١٢٣ ٤٥٦٧",
        "\u200e9123\u00a04567",
    ],
)
def test_a_phone_is_read_however_it_is_typed(typed: str) -> None:
    assert sign_in.normalise_phone(typed) == "+96891234567"


@pytest.mark.parametrize("typed", ["", "1", "9123456", "abc", "9" * 40, "+", "91234567; drop", "\x00" * 8])
def test_what_is_no_phone_is_refused(typed: str) -> None:
    with pytest.raises(sign_in.PhoneInvalid):
        sign_in.normalise_phone(typed)


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("123456", "123456"),
        (" 123 456 ", "123456"),
        ("١٢٣٤٥٦", "123456"),
        ("12345", ""),
        ("1234567", ""),
        ("12345a", ""),
        ("", ""),
    ],
)
def test_a_code_is_six_digits(typed: str, code: str) -> None:
    assert sign_in.normalise_code(typed) == code


async def start(conn):
    await make_tariffs(conn)
    return await make_house(conn)


async def send(conn, code="123456", *, phone=PHONE, now=NOW):
    await sign_in.send_code(conn, phone=phone, secret_key=KEY, now=now, languages=load_languages(), code=code)


async def check(conn, code, *, phone=PHONE, now=NOW):
    return await sign_in.check_code(conn, phone=phone, code=code, secret_key=KEY, now=now)


async def test_the_right_code_signs_in_once(conn) -> None:
    house = await start(conn)
    await send(conn)
    login = await check(conn, "123456")
    assert (login.role, login.customer_id) == ("subscriber", house.customer_id)
    assert await check(conn, "123456") is None
    await send(conn, "654321")
    assert (await check(conn, "654321")).id == login.id, "the same login at the next sign-in"


async def test_the_sms_is_in_the_customers_language_and_the_code_is_stored_hashed(conn) -> None:
    await start(conn)
    await send(conn, "424242")
    (message,) = await message_store.list_messages_to(conn, PHONE, limit=5)
    assert "424242" in message.body
    assert (message.kind, message.language) == ("one_time_code", "ar")
    row = await (await conn.execute("SELECT code_hash FROM portal.one_time_code")).fetchone()
    assert row[0] == sign_in.code_hash(KEY, PHONE, "424242")
    assert b"424242" not in row[0]


async def test_a_code_dies_after_five_minutes(conn) -> None:
    await start(conn)
    await send(conn)
    assert await check(conn, "123456", now=NOW + timedelta(minutes=5)) is None
    assert await check(conn, "123456", now=NOW + timedelta(minutes=4, seconds=59)) is not None


async def test_five_wrong_tries_kill_a_code(conn) -> None:
    await start(conn)
    await send(conn)
    for _ in range(5):
        assert await check(conn, "000000") is None
    assert await check(conn, "123456") is None


async def test_only_the_latest_code_is_active(conn) -> None:
    await start(conn)
    await send(conn, "111111")
    await send(conn, "222222")
    assert await check(conn, "111111") is None
    assert await check(conn, "222222") is not None


async def test_an_unknown_phone_leaves_no_trace(conn) -> None:
    await start(conn)
    await send(conn, phone="+96899999999")
    row = await (
        await conn.execute(
            "SELECT (SELECT count(*) FROM portal.one_time_code) + (SELECT count(*) FROM portal.message)"
        )
    ).fetchone()
    assert row[0] == 0
    assert await check(conn, "123456", phone="+96899999999") is None


async def test_another_phones_code_does_not_fit(conn) -> None:
    await start(conn)
    await make_house(conn, 2)
    await send(conn, "123456")
    await send(conn, "777777", phone="+96890000002")
    assert await check(conn, "123456", phone="+96890000002") is None


@pytest.mark.parametrize(
    ("name", "password", "role", "shown"),
    [
        ("x", "long enough password", "agent", "X"),
        ("muna", "short", "agent", "Muna"),
        ("muna", "p" * 257, "agent", "Muna"),
        ("muna", "long enough password", "subscriber", "Muna"),
        ("muna", "long enough password", "king", "Muna"),
        ("mu na", "long enough password", "agent", "Muna"),
        ("muna", "long enough password", "agent", " "),
    ],
)
async def test_a_poor_staff_login_is_refused(conn, name, password, role, shown) -> None:
    with pytest.raises(sign_in.StaffInvalid):
        await sign_in.create_staff(conn, name, password, role, shown)
    assert await login_store.find_staff(conn, name) is None


async def test_staff_sign_in_by_password_hashed_with_argon2id(conn) -> None:
    await sign_in.create_staff(conn, " Muna ", "long enough password", "agent", "Muna")
    login = await login_store.find_staff(conn, "muna")
    assert login.password_hash.startswith("$argon2id$")
    assert await sign_in.password_matches(login, "long enough password")
    assert not await sign_in.password_matches(login, "long enough passwore")
    assert not await sign_in.password_matches(None, "long enough password")
    with pytest.raises(psycopg.errors.UniqueViolation):
        await sign_in.create_staff(conn, "muna", "long enough password", "agent", "Muna")


async def test_a_session_lives_as_its_hash_until_it_ends(conn) -> None:
    house = await start(conn)
    login = await login_store.get_subscriber_login(conn, house.customer_id)
    opened = await sign_in.open_session(conn, login, NOW)
    found = await find_session(conn, opened.secret)
    assert (found.login_id, found.name_ar, found.name_en) == (login.id, "سالم", "Salim")
    stored = await (await conn.execute("SELECT id_hash FROM portal.session")).fetchone()
    assert stored[0] == session_hash(opened.secret)
    assert await find_session(conn, opened.secret + "x") is None
    other = await sign_in.open_session(conn, login, NOW - timedelta(days=31))
    assert await find_session(conn, other.secret) is None, "a month is over"
    assert await delete_expired_sessions(conn, NOW) == 1
    await conn.execute("UPDATE portal.login SET disabled_at = now()")
    assert await find_session(conn, opened.secret) is None
    await conn.execute("UPDATE portal.login SET disabled_at = NULL")
    await delete_session(conn, opened.secret)
    assert await find_session(conn, opened.secret) is None


async def test_the_demo_persona_is_who_has_most_kinds_of_meter(conn) -> None:
    assert await login_store.find_demo_customer(conn) is None
    await start(conn)
    house = await make_house(conn, 2)
    assert (await login_store.find_demo_customer(conn)).id < house.customer_id
    assert await login_store.find_first_of_role(conn, "engineer") is None
