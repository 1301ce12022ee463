import pytest

from portal.pages.render import FLASH_COOKIE, Assets, local_path
from tests.billing.world import make_house, make_tariffs
from tests.portal.visitor import visiting


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.test/",
        "//evil.test",
        "/\\evil.test",
        "javascript:alert(1)",
        "",
        None,
        "/a\nb",
        "a",
        "/\t/evil",
    ],
)
def test_a_path_that_leads_away_is_replaced(target) -> None:
    assert local_path(target, "/home") == "/home"


@pytest.mark.parametrize("target", ["/", "/my", "/my/meters/1?view=day&day=2026-01-01"])
def test_a_path_of_ours_is_kept(target) -> None:
    assert local_path(target, "/home") == target


def test_assets_change_their_address_with_their_content(tmp_path) -> None:
    (tmp_path / "a.css").write_text("one")
    first = Assets(tmp_path)("a.css")
    (tmp_path / "a.css").write_text("two")
    assert Assets(tmp_path)("a.css") != first
    assert Assets(tmp_path)("missing.css") == "/static/missing.css"


async def test_a_message_is_shown_once_and_a_forged_one_never(database_url, pool) -> None:
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
        await conn.execute("UPDATE meter_gateway.meter SET link = 'keypad'")
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        visitor.http.cookies.set(FLASH_COOKIE, "W1sib2siLCAiRk9SR0VEIl1d.00")
        assert "FORGED" not in (await visitor.get("/my")).text
        visitor.http.cookies.set(FLASH_COOKIE, "not base64 at all")
        assert (await visitor.get("/my")).status_code == 200


async def test_an_htmx_request_gets_its_block_and_others_the_page(database_url, pool) -> None:
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        part = await visitor.get("/my", headers={"HX-Request": "true"})
        assert "<html" not in part.text
        assert 'id="tiles"' in part.text
        assert part.headers["vary"] == "HX-Request"
        assert "<html" in (await visitor.get("/my")).text


async def test_navigation_shows_ones_own_rooms_only(database_url, pool) -> None:
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
    async with visiting(database_url) as visitor:
        await visitor.be_subscriber(house.customer_id)
        text = (await visitor.get("/my")).text
        assert 'href="/my" aria-current="page"' in text
        assert 'href="/desk"' not in text
        assert 'href="/field"' not in text
