from datetime import UTC, datetime, timedelta

from meter_gateway import edge_store, sequence_store
from meter_gateway.sequence_store import MAX_RANGES, Gap

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


async def test_missing_ranges_end_where_the_gap_was_noticed(conn):
    await edge_store.insert_messages(conn, [("site-1", 1, seq) for seq in (1, 2, 5, 6, 9)], NOW)
    await edge_store.insert_messages(conn, [("site-1", 1, 20), ("site-1", 2, 3)], NOW + timedelta(minutes=1))
    gap = Gap("site-1", 1, 3, NOW)
    assert await sequence_store.find_missing(conn, gap) == [(3, 4), (7, 8)]
    later = Gap("site-1", 1, 3, NOW + timedelta(minutes=2))
    assert await sequence_store.find_missing(conn, later) == [(3, 4), (7, 8), (10, 19)]


async def test_a_finding_counts_all_and_names_some(conn):
    missing = [(10 * n, 10 * n + 1) for n in range(1, MAX_RANGES + 6)]
    await sequence_store.insert_finding(conn, Gap("site-1", 1, 10, NOW), missing)
    cursor = await conn.execute("SELECT detail FROM meter_gateway.meter_event WHERE edge = 'site-1'")
    ((detail,),) = await cursor.fetchall()
    assert (detail["missing"], len(detail["ranges"])) == (2 * len(missing), MAX_RANGES)
