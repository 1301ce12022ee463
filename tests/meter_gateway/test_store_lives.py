"""Births and deaths by the hundred: what one edge says in its order, and a bounded number of statements for all."""

from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meter_gateway.store_lives import store_lives
from meter_gateway.topics import Birth, Death
from tests.meter_gateway.places import NOW, make_mqtt_meter, make_site

DRNS = [f"06{number:09d}" for number in range(40)]


def birth(edge, session, boot=1, kind="meter"):
    return Birth(edge, kind, boot, session, 0)


async def online(conn):
    cursor = await conn.execute("SELECT edge, online FROM meter_gateway.edge")
    return dict(await cursor.fetchall())


class Counting:
    """A connection that counts what is asked of it."""

    def __init__(self, conn):
        self.conn, self.asked = conn, 0

    async def execute(self, *words):
        self.asked += 1
        return await self.conn.execute(*words)


async def test_a_whole_fleet_is_born_in_as_many_statements_as_one_meter(conn):
    for drn in DRNS:
        await make_mqtt_meter(conn, drn)
    asked = []
    for session, edges in ((1, DRNS[:1]), (2, DRNS)):
        counting = Counting(conn)
        lives = await store_lives(counting, [birth(edge, session) for edge in edges], NOW)
        assert ([one.edge for one in lives.births], lives.late_births, lives.strangers) == (edges, [], [])
        assert lives.links == dict.fromkeys(edges, True)
        asked.append(counting.asked)
    assert asked[0] == asked[1]
    assert await online(conn) == dict.fromkeys(DRNS, True)


async def test_nothing_is_asked_where_nobody_was_born_or_died(conn):
    counting = Counting(conn)
    await store_lives(counting, [], NOW)
    assert counting.asked == 0


async def test_each_edge_keeps_its_order_among_the_others(conn):
    await make_site(conn)
    for drn in DRNS[:3]:
        await make_mqtt_meter(conn, drn)
    one, two, three = DRNS[:3]
    lives = await store_lives(
        conn,
        [
            birth(one, 1),
            birth(two, 2),
            Death(one, 1, 1),
            birth(two, 1),  # overtaken on its way
            Death(two, 1, 1),  # of a session that is over
            birth("site-1", 1, kind="gateway"),
            birth(one, 2),
            Death("site-1", 1, 1),
            birth("site-1", 1, kind="meter"),  # nobody of this kind
            birth(three, 4),
            Death(three, 1, 4),
        ],
        NOW,
    )
    assert await online(conn) == {one: True, two: True, three: False, "site-1": False}
    assert lives.links == {one: True, two: True, three: False, "site-1": False}
    assert [(life.edge, life.session) for life in lives.late_births] == [(two, 1)]
    assert [(life.edge, life.kind) for life in lives.strangers] == [("site-1", "meter")]
    assert sorted((life.edge, life.session) for life in lives.births) == sorted(
        [(one, 1), (two, 2), ("site-1", 1), (one, 2), (three, 4)]
    )


LIVES = st.lists(
    st.tuples(st.booleans(), st.sampled_from(DRNS[:3]), st.integers(1, 2), st.integers(1, 3)), max_size=12
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # each example is rolled back
@given(said=LIVES)
async def test_all_at_once_comes_to_what_one_after_the_other_does(conn, said):
    lives = [birth(edge, n, boot) if born else Death(edge, boot, n) for born, edge, boot, n in said]
    ends = []
    for batches in ([lives], [[life] for life in lives]):
        async with conn.transaction(force_rollback=True):
            for drn in DRNS[:3]:
                await make_mqtt_meter(conn, drn)
            links = {}
            for place, batch in enumerate(batches):
                links |= (await store_lives(conn, batch, NOW + timedelta(seconds=place))).links
            cursor = await conn.execute(
                "SELECT edge, boot, session, online FROM meter_gateway.edge ORDER BY edge"
            )
            ends.append((await cursor.fetchall(), links))
    assert ends[0] == ends[1]
