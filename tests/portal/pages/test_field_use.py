"""The engineer sees what the customer sees of a meter's consumption, and nobody else does."""

import pytest

from tests.portal.pages.test_my import bare, house_in, two_weeks
from tests.portal.visitor import visiting


@pytest.mark.parametrize(("language", "words"), [("en", "Measured in this period"), ("ar", "الأقدم")])
async def test_an_engineer_sees_the_consumption_of_any_meter(database_url, pool, language, words) -> None:
    house = await house_in(pool)
    await two_weeks(pool, house, 10_000)
    async with visiting(database_url, language=language) as visitor:
        await visitor.be_staff("engineer")
        answer = await visitor.get(f"/field/meters/{house.drn}/use?view=year")
        assert words in bare(answer.text)
        assert answer.text.count("<tr><td data-label") == 53
        assert f"/field/meters/{house.drn}/use" in (await visitor.get(f"/field/meters/{house.drn}")).text
        assert (await visitor.get("/field/meters/00000000000/use")).status_code == 404
        assert (await visitor.get(f"/field/meters/{house.drn}/use?hour=24")).status_code == 422


async def test_a_customer_does_not_get_there(database_url, pool) -> None:
    house = await house_in(pool)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        assert (await visitor.get(f"/field/meters/{house.drn}/use")).status_code in (403, 404)
