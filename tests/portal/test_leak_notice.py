"""A leak is told once, in the daytime, in the customer's language."""

from datetime import UTC, datetime

import pytest

from portal import message_store
from portal.i18n import load_languages
from portal.leak_notice import LeakNotices
from tests.portal.finding_world import make_findings

NOON = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture(scope="module")
def languages():
    return load_languages()


async def test_one_message_a_leak(pool, languages) -> None:
    town = await make_findings(pool)
    notices = LeakNotices(pool, languages, lambda: NOON)
    assert [await notices.round(), await notices.round()] == [1, 0]
    async with pool.connection() as conn:
        (message,) = await message_store.list_messages_to(conn, town.phones["w1"], limit=5)
    assert (message.kind, message.customer_id) == ("leak", town.customers["w1"])
    assert town.drns["w1"] in message.body
    assert "36" in message.body
    assert message.language == "ar"
    assert "تسرب" in message.body


@pytest.mark.parametrize(("hour", "told"), [(2, 0), (3, 1), (16, 1), (17, 0), (23, 0)])
async def test_nobody_is_woken(pool, languages, hour, told) -> None:
    await make_findings(pool)
    night = LeakNotices(pool, languages, lambda: datetime(2026, 11, 22, hour, tzinfo=UTC))
    assert await night.round() == told
