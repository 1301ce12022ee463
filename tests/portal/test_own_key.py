"""From the shelf to the wall: a meter under its stock key gets its own one before any credit, with a link and without."""

from datetime import UTC, datetime

import pytest

from billing import identity_store
from billing.key_change import ChangeState
from portal import change_keys
from tests.billing.world import NOW, Clock, make_meter, make_tariffs
from tests.portal.key_world import rich_vault
from tests.portal.sales import one
from tests.portal.visitor import visiting
from token_engine.token_text import group_digits

VAULT = rich_vault()


@pytest.fixture
async def place(conn):
    """A house that waits and a keypad meter with its stock key."""
    await make_tariffs(conn)
    meter_id, drn = await make_meter(conn, 50, link="keypad")
    await conn.execute("UPDATE billing.sts_identity SET kt = 1 WHERE meter_id = %s", (meter_id,))
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.network_node (code, commodity, kind, name_en, name_ar)"
        " VALUES ('TX', 'electricity', 'transformer', 'T', 'م') RETURNING id"
    )
    node = (await cursor.fetchone())[0]
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.service_location (code, address_en, address_ar) VALUES ('L', 'A', 'ع') RETURNING id"
    )
    location = (await cursor.fetchone())[0]
    cursor = await conn.execute(
        "INSERT INTO meter_gateway.usage_point (code, service_location_id, network_node_id, commodity)"
        " VALUES ('U', %s, %s, 'electricity') RETURNING id",
        (location, node),
    )
    point = (await cursor.fetchone())[0]
    await conn.commit()
    return meter_id, drn, point


async def test_a_keypad_meter_is_changed_by_the_engineers_hand(pool, database_url, place):
    meter_id, drn, point = place
    async with visiting(database_url) as engineer:
        await engineer.be_staff("engineer")
        await engineer.post(f"/field/meters/{drn}/install", {"usage_point_id": str(point)})
        change_id = await one(pool, "SELECT id FROM billing.key_change WHERE state = 'PLANNED'")
        assert await change_keys.issue_change(pool, VAULT, change_id, Clock()) is ChangeState.ISSUED
        async with pool.connection() as conn:
            first = await change_keys.list_first_tokens(conn, meter_id)
        page = await engineer.get(f"/field/meters/{drn}?lang=en")
        assert "This meter gets a new key" in page.text
        shown = page.text.replace("\u00a0", " ")
        assert all(group_digits(digits, " ") in shown for digits in first)
        await engineer.post(f"/field/meters/{drn}/own-key", {})
        async with pool.connection() as conn:
            identity = await identity_store.get_identity(conn, meter_id)
        assert (identity.kt, identity.pending) == (2, None)
        page = await engineer.get(f"/field/meters/{drn}?lang=en")
        assert "This meter gets a new key" not in page.text
        assert (await engineer.post(f"/field/meters/{drn}/own-key", {})).status_code < 400


async def test_an_engineer_does_not_confirm_what_the_office_planned(pool, database_url, place):
    meter_id, drn, _point = place
    async with pool.connection() as conn:
        await conn.execute("UPDATE meter_gateway.meter SET link = 'mqtt'")
        change = await change_keys.begin_commissioning(
            conn, meter_id=meter_id, begun_by="engineer", now=datetime.now(UTC)
        )
    await change_keys.issue_change(pool, VAULT, change.id, lambda: NOW)
    async with visiting(database_url) as engineer:
        await engineer.be_staff("engineer")
        await engineer.post(f"/field/meters/{drn}/own-key", {})
    async with pool.connection() as conn:
        assert (await identity_store.get_identity(conn, meter_id)).pending is not None
