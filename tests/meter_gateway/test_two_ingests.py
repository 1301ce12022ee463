"""Two headends as processes of their own behind one broker: they share the work, and one may be killed."""

from __future__ import annotations

from collections import Counter

from meter_gateway.topics import Reading
from tests.meter_gateway.places import make_mqtt_meter
from tests.meter_gateway.roles import Role, until
from tests.meter_gateway.test_headend import DRN, Edge, count, now_ms

NAMES = ("headend-1", "headend-2")


async def test_two_ingests_share_the_load_and_one_killed_and_restarted_loses_nothing(
    conn, broker, database_url
):
    await make_mqtt_meter(conn)
    await conn.execute(
        "ALTER TABLE meter_gateway.edge_message"
        " ADD COLUMN stored_by text NOT NULL DEFAULT current_setting('application_name')"
    )
    await conn.commit()

    async def shares(first, last):
        found = await conn.execute(
            "SELECT stored_by FROM meter_gateway.edge_message WHERE seq BETWEEN %s AND %s", (first, last)
        )
        names = Counter(row[0] for row in await found.fetchall())
        await conn.commit()
        return names

    roles = [Role("headend", database_url=database_url, mqtt_url=broker.url, name=name) for name in NAMES]
    start = now_ms() - 10_000
    said = 0
    try:
        for role in roles:
            role.start()
        async with Edge(broker.url) as edge:

            def say(many):
                nonlocal said
                for seq in range(said, said + many):
                    assert edge.say(seq, Reading(DRN, "credit", start + seq, seq))
                said += many

            async def both_listen():
                say(2)
                return set(await shares(0, said)) == set(NAMES)

            async def all_receipted():
                return len(edge.receipted) == said

            await until(both_listen)
            # What was said before anybody listened is the only thing that an edge must say again.
            edge.receipted |= {(1, seq) for seq in range(said)}
            first = said
            say(400)
            await until(all_receipted)
            taken = await shares(first, said - 1)
            assert sum(taken.values()) == 400
            assert all(0.35 * 400 <= taken[name] <= 0.65 * 400 for name in NAMES), taken

            say(300)
            roles[0].kill()
            say(300)
            roles[0].start()
            # Nothing is said again: what the dead one held, its session at the broker holds for it.
            await until(all_receipted, seconds=30)
            stored = await shares(first, said - 1)
        assert sum(stored.values()) == said - first
        assert await count(conn) == await count(conn, "edge_message")
    finally:
        for role in roles:
            role.kill()
