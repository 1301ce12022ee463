"""Messages that never came: noticed, asked for, and told only when the edge itself has nothing older to say."""

import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from meter_gateway import edge_store
from meter_gateway.event_store import NewEvent, insert_events
from meter_gateway.store_batch import store_batch
from meter_gateway.topics import DROPPED, Birth, Death
from meter_gateway.watch_sequence import PATIENCE, SWEEP, sweep
from tests.meter_gateway.places import make_mqtt_meter

START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
DRN = "06000000011"


class Days:
    """An edge of these tests, and a clock that goes on a minute a sweep."""

    def __init__(self, conn, edge="site-1"):
        self.conn, self.edge, self.now = conn, edge, START
        self.session = 0

    async def born(self, boot=1, backlog=0):
        self.session += 1
        self.now += timedelta(seconds=1)
        birth = Birth(self.edge, "gateway", boot, self.session, 0, config_version=1, backlog=backlog)
        assert await edge_store.mark_born(self.conn, [birth], self.now)

    async def says(self, *seqs, boot=1):
        await edge_store.insert_messages(self.conn, [(self.edge, boot, seq) for seq in seqs], self.now)
        await edge_store.mark_seen(self.conn, [self.edge], self.now)

    async def minute(self):
        self.now += SWEEP
        return await sweep(self.conn, since=self.now - 2 * SWEEP, now=self.now)

    async def minutes(self, count):
        return [gap for _ in range(count) for gap in await self.minute() or ()]

    async def findings(self):
        cursor = await self.conn.execute(
            "SELECT edge, detail FROM meter_gateway.meter_event WHERE code = 'raseed.sequence_gap' ORDER BY id"
        )
        return await cursor.fetchall()

    async def complete_to(self, boot=1):
        cursor = await self.conn.execute(
            "SELECT complete_to, gap_since IS NOT NULL FROM meter_gateway.edge_sequence WHERE edge = %s AND boot = %s",
            (self.edge, boot),
        )
        return await cursor.fetchone()


PATIENT = PATIENCE // SWEEP + 2


@pytest.fixture
async def days(conn):
    made = Days(conn)
    await made.born()
    return made


async def test_a_stream_without_a_gap_asks_nothing(days):
    for minute in range(15):
        await days.says(3 * minute + 3, 3 * minute + 1, 3 * minute + 2)
        assert await days.minute() == []
    assert await days.complete_to() == (45, False)


async def test_what_comes_late_within_ten_minutes_was_no_loss(days):
    await days.says(1, 2, 5)
    assert await days.minutes(8) == []
    assert await days.complete_to() == (2, True)
    await days.says(3, 4)
    assert await days.minutes(PATIENT) == []
    assert await days.complete_to() == (5, False)


async def test_a_gap_that_stays_is_asked_about_and_told_once_the_edge_has_nothing_older(days):
    await days.says(1, 2, 5, 8)
    asked = await days.minutes(PATIENT)
    assert [(gap.edge, gap.boot, gap.first) for gap in asked] == [("site-1", 1, 3)]
    assert await days.findings() == [], "not before the edge answered"
    await days.born(backlog=0)
    await days.says(9)
    assert await days.minute() == []
    detail = {"boot": 1, "missing": 4, "ranges": [[3, 4], [6, 7]], "given_up": 0}
    assert await days.findings() == [("site-1", detail)]
    assert await days.minutes(3 * PATIENT) == []
    assert len(await days.findings()) == 1
    assert await days.complete_to() == (9, False)


async def test_history_that_still_waits_its_turn_is_no_loss(days):
    await days.says(1, 900)
    assert len(await days.minutes(PATIENT)) == 1
    await days.born(backlog=800)
    assert len(await days.minutes(PATIENT)) == 1, "asked again, patiently"
    assert await days.findings() == []
    await days.says(*range(2, 900))
    await days.born(backlog=0)
    assert await days.minutes(PATIENT) == []
    assert await days.findings() == []


async def test_while_the_gap_closes_patience_begins_anew(days):
    await days.says(1, 100)
    for seq in range(2, 40):
        await days.says(seq)
        assert await days.minute() == []


async def test_messages_that_came_in_just_now_are_not_missed(days):
    await days.says(1, 3)
    await days.minutes(PATIENT)
    await days.says(10)  # 4 to 9 are under way
    await days.born(backlog=0)
    await days.minute()
    ((_, detail),) = await days.findings()
    assert detail["ranges"] == [[2, 2]]


async def test_an_edge_that_is_away_is_not_asked(days, conn):
    await days.says(1, 3)
    await edge_store.mark_dead(conn, [Death("site-1", 1, 1)])
    assert await days.minutes(PATIENT) == []


async def test_a_gap_of_an_earlier_boot_is_still_watched_and_the_settled_ones_are_forgotten(days):
    await days.says(1, 3)
    await days.minute()
    await days.born(boot=2)
    await days.says(1, 2, boot=2)
    await days.minute()
    assert await days.complete_to(1) == (1, True)
    assert await days.complete_to(2) == (2, False)
    await days.says(2, boot=1)
    await days.minutes(2)
    assert await days.complete_to(1) is None


async def test_what_is_lost_of_an_earlier_start_is_told_though_that_was_complete_until_then(days):
    await days.says(*range(1, 101))
    await days.minute()
    await days.born(boot=2, backlog=99)
    await days.says(1, boot=2)
    await days.minute()
    assert await days.complete_to(1) == (100, False), "its disk may still hold some of it"
    await days.says(*range(150, 200), boot=1)
    assert [(gap.boot, gap.first) for gap in await days.minutes(PATIENT)] == [(1, 101)]
    await days.born(boot=2, backlog=0)
    await days.says(2, boot=2)
    await days.minutes(2)
    ((_, detail),) = await days.findings()
    assert (detail["boot"], detail["ranges"]) == (1, [[101, 149]])
    assert await days.complete_to(1) is None


async def test_a_start_that_was_over_before_it_was_heard_of_is_watched_too(days):
    await days.born(boot=4, backlog=30)
    await days.says(1, boot=4)
    await days.says(1, 2, 9, boot=2)
    await days.minute()
    assert (await days.complete_to(2), await days.complete_to(3)) == ((2, True), None)
    asked = await days.minutes(PATIENT)
    assert [(gap.boot, gap.first) for gap in asked] == [(2, 3)]


async def test_a_settled_start_of_which_only_the_end_is_left_in_the_ledger_begins_no_gap(days):
    await days.says(500, 501, boot=1)
    days.now += timedelta(days=2)
    await days.born(boot=2, backlog=30)
    await days.says(1, boot=2)
    assert await days.minutes(PATIENT) == []
    assert await days.complete_to(1) is None


async def test_what_the_edge_said_to_have_given_up_stands_beside_and_a_meter_is_named(conn):
    meter_id = (await make_mqtt_meter(conn, DRN)).id
    days = Days(conn, DRN)
    await days.born()
    await days.says(1, 4)
    await insert_events(conn, [NewEvent(meter_id, DRN, DROPPED, days.now, {"count": 7})])
    await days.minutes(PATIENT)
    await days.born()
    await days.minute()
    cursor = await conn.execute(
        "SELECT meter_id, (detail ->> 'given_up')::int FROM meter_gateway.meter_event"
        " WHERE code = 'raseed.sequence_gap'"
    )
    assert await cursor.fetchall() == [(meter_id, 7)]


async def test_two_headends_do_not_sweep_at_once(days, conn, database_url):
    await conn.commit()
    async with await psycopg.AsyncConnection.connect(database_url) as other:
        assert await sweep(other, since=START, now=START) == []
        assert await days.minute() is None
        await other.rollback()
        await days.says(1, 3)
        assert len(await days.minutes(PATIENT)) == 1


async def test_a_long_stream_is_complete_in_one_look(days, conn):

    await conn.execute(
        "INSERT INTO meter_gateway.edge_message (edge, boot, seq, received_at)"
        " SELECT 'site-1', 1, s, %s FROM generate_series(1, 20000) s",
        (START,),
    )
    await days.minute()
    assert await days.complete_to() == (20000, False)
    await days.says(20001)
    await days.minute()
    assert await days.complete_to() == (20001, False)


async def test_what_came_and_was_parked_is_not_missing(days):
    def data(seq, records):
        message = {"edge": "site-1", "boot": 1, "seq": seq, "sent": 1, "records": records}
        return "rsd/1/up/site-1/data", json.dumps(message).encode()

    await store_batch(days.conn, [data(1, []), data(2, 3), data(3, [])], days.now)
    assert await days.minutes(PATIENT) == []
    assert await days.complete_to() == (3, False)
