"""A person's word on findings: explained, decided, believed again; each once, each with its four facts."""

from datetime import timedelta

import pytest

from meter_gateway import topics
from meter_gateway.message_key import to_millis
from meter_gateway.readings import decide_finding, finding_store
from meter_gateway.readings.check_readings import check_readings
from meter_gateway.readings.decide_finding import FindingClosed, NotClosable, NothingToBelieve
from meter_gateway.readings.finding_store import FindingNotFound
from meter_gateway.store_batch import store_batch
from meter_gateway.topics import Event, Reading, Uplink, encode, up_topic
from tests.meter_gateway.places import NOW, make_mqtt_meter

DRN = "06000000011"
MINUTE = timedelta(minutes=1)


class Wire:
    """Messages of one MQTT meter, one after the other, as ingest takes them."""

    def __init__(self, pool):
        self.pool, self.seq = pool, 0

    async def say(self, *records, now=NOW):
        self.seq += 1
        message = Uplink(DRN, 1, self.seq, to_millis(now), list(records))
        async with self.pool.connection() as conn:
            await store_batch(conn, [(up_topic(DRN, Uplink), encode(message))], now)

    async def count(self, minute, value):
        now = NOW + minute * MINUTE
        await self.say(Reading(DRN, "counter", to_millis(now), value), now=now)


@pytest.fixture
async def wire(pool):
    async with pool.connection() as conn:
        await make_mqtt_meter(conn)
    return Wire(pool)


async def one(conn, query, *values):
    return await (await conn.execute(query, values)).fetchone()


async def open_finding(pool, now=NOW):
    await check_readings(pool, now)
    async with pool.connection() as conn:
        return (await one(conn, "SELECT id FROM meter_gateway.reading_finding WHERE closed_at IS NULL"))[0]


WORD = {"by": "salim", "reason": "seen at the meter", "now": NOW + timedelta(hours=1)}


async def test_explained_once_with_who_when_why_and_what(pool, wire):
    await wire.say(Event(DRN, topics.TAMPER, to_millis(NOW), {"active": True}))
    finding = await open_finding(pool)
    async with pool.connection() as conn:
        await decide_finding.explain_finding(conn, finding, **WORD)
    async with pool.connection() as conn:
        assert await one(
            conn,
            "SELECT actor, occurred_at, reason, outcome FROM meter_gateway.reading_finding_step WHERE step = 'closed'",
        ) == ("salim", WORD["now"], "seen at the meter", "explained")
        with pytest.raises(FindingClosed):
            await decide_finding.explain_finding(conn, finding, **WORD)
        with pytest.raises(FindingNotFound):
            await decide_finding.explain_finding(conn, finding + 1, **WORD)
    assert (await check_readings(pool, NOW + 2 * MINUTE)).opened == 0, (
        "the alarm still stands, and is explained"
    )


async def test_a_later_value_is_accepted_and_the_first_row_stays(pool, wire):
    await wire.say(Reading(DRN, "credit", to_millis(NOW), 5))
    await wire.say(Reading(DRN, "credit", to_millis(NOW), 6))
    await wire.say(Reading(DRN, "credit", to_millis(NOW), 7))
    finding = await open_finding(pool)
    async with pool.connection() as conn:
        rows = await (
            await conn.execute("SELECT id FROM meter_gateway.reading_conflict ORDER BY id")
        ).fetchall()
        first, second = (row[0] for row in rows)
        with pytest.raises(NotClosable):
            await decide_finding.explain_finding(conn, finding, **WORD)
        await decide_finding.decide_conflict(conn, finding, first, verdict="accept", **WORD)
        assert (await finding_store.get_finding(conn, finding)).closed_at is None
        await decide_finding.decide_conflict(conn, finding, first, verdict="accept", **WORD)
        with pytest.raises(FindingClosed):
            await decide_finding.decide_conflict(conn, finding, first, verdict="keep", **WORD)
        with pytest.raises(FindingNotFound):
            await decide_finding.decide_conflict(conn, finding, second + 1, verdict="keep", **WORD)
        best = "SELECT value, told_value FROM meter_gateway.v_reading_judged WHERE channel = 'credit'"
        assert await one(conn, best) == (6, 5)
        await decide_finding.decide_conflict(conn, finding, second, verdict="keep", **WORD)
        assert (await finding_store.get_finding(conn, finding)).closed_at == WORD["now"]
        assert await one(conn, "SELECT value FROM meter_gateway.reading") == (5,)
    assert (await check_readings(pool, NOW + MINUTE)).opened == 0


async def test_a_clock_that_stands_still_is_found_and_its_values_are_decided_together(pool, wire):
    """Each value contradicts the first: one finding of the clock, one of the conflicts, one decision."""
    for minute in range(1, 13):
        await wire.say(Reading(DRN, "counter", to_millis(NOW), 1_000 + minute), now=NOW + minute * MINUTE)
    await check_readings(pool, NOW + 13 * MINUTE)
    async with pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT kind, id, (detail ->> 'values')::int FROM meter_gateway.reading_finding ORDER BY kind"
        )
        (clock, _, values), (conflict, finding, _) = await cursor.fetchall()
        assert (clock, values, conflict) == ("clock", 11, "conflict")
        ids = await one(conn, "SELECT min(id), max(id) FROM meter_gateway.reading_conflict")
        await decide_finding.decide_conflict(conn, finding, ids[0], verdict="accept", **WORD)
        assert await decide_finding.keep_values(conn, finding, upto_id=ids[1] - 1, **WORD) == 9
        assert (await finding_store.get_finding(conn, finding)).closed_at is None, "one came after the look"
        assert await decide_finding.keep_values(conn, finding, upto_id=ids[1], **WORD) == 1
        assert (await finding_store.get_finding(conn, finding)).closed_at == WORD["now"]
        judged = "SELECT value, told_value FROM meter_gateway.v_reading_judged"
        assert await one(conn, judged) == (1_002, 1_001), "what was accepted before counts on"
        with pytest.raises(FindingClosed):
            await decide_finding.keep_values(conn, finding, upto_id=ids[1], **WORD)
    assert (await check_readings(pool, NOW + 14 * MINUTE)).opened == 0


async def test_only_conflicts_are_kept_together(pool, wire):
    await wire.say(Event(DRN, topics.TAMPER, to_millis(NOW), {"active": True}))
    finding = await open_finding(pool)
    async with pool.connection() as conn:
        with pytest.raises(FindingNotFound):
            await decide_finding.keep_values(conn, finding, upto_id=9, **WORD)


async def test_another_findings_conflict_is_not_decided_here(pool, wire):
    await wire.say(Reading(DRN, "credit", to_millis(NOW), 5), Reading(DRN, "load", to_millis(NOW), 5))
    await wire.say(Reading(DRN, "credit", to_millis(NOW), 6), Reading(DRN, "load", to_millis(NOW), 6))
    await check_readings(pool, NOW)
    async with pool.connection() as conn:
        finding = await one(conn, "SELECT id FROM meter_gateway.reading_finding WHERE channel = 'load'")
        conflict = await one(conn, "SELECT id FROM meter_gateway.reading_conflict WHERE channel = 'credit'")
        with pytest.raises(FindingNotFound):
            await decide_finding.decide_conflict(conn, finding[0], conflict[0], verdict="keep", **WORD)


async def test_a_counter_that_began_again_is_believed_when_a_person_says_so(pool, wire):
    for minute, value in enumerate((900_000, 900_010, 0, 99_000_000, 5, 6)):
        await wire.count(minute, value)
    finding = await open_finding(pool, NOW + 6 * MINUTE)
    async with pool.connection() as conn:
        assert await decide_finding.preview_rebase(conn, finding) is None, "two that agree are not enough"
        with pytest.raises(NotClosable):
            await decide_finding.explain_finding(conn, finding, **WORD)
    await wire.count(6, 7)
    async with pool.connection() as conn:
        shown = await decide_finding.preview_rebase(conn, finding)
        assert (shown.from_at, shown.base_value, shown.top_value) == (NOW + 4 * MINUTE, 5, 7)
        assert (shown.believed, shown.left) == (3, 2)
        state = "SELECT counter, counter_suspect FROM meter_gateway.meter_state"
        assert await one(conn, state) == (900_010, True), "a look changes nothing"
    await wire.count(7, 8)  # while the person thinks: the same run, longer
    asked = {"cause": "reset", "from_at": shown.from_at, "base_value": shown.base_value}
    async with pool.connection() as conn:
        done = await decide_finding.rebase_counter(conn, finding, **asked, **WORD)
        assert (done.top_value, done.believed) == (8, 4)
    await wire.count(8, 9)
    async with pool.connection() as conn:
        assert await one(conn, state) == (9, False)
        cursor = await conn.execute(
            "SELECT value, quality FROM meter_gateway.v_reading_judged ORDER BY occurred_at"
        )
        assert await cursor.fetchall() == [
            (900_000, "valid"),
            (900_010, "valid"),
            (0, "suspect"),
            (99_000_000, "suspect"),
            (5, "valid"),
            (6, "valid"),
            (7, "valid"),
            (8, "valid"),
            (9, "valid"),
        ]
        assert await one(
            conn, "SELECT last_value, base_value, cause, decided_by, reason FROM meter_gateway.counter_rebase"
        ) == (900_010, 5, "reset", "salim", "seen at the meter")
        assert await one(
            conn,
            "SELECT detail ->> 'by' FROM meter_gateway.meter_event WHERE code = %s",
            topics.COUNTER_REBASED,
        ) == ("salim",)
        with pytest.raises(FindingClosed):
            await decide_finding.rebase_counter(conn, finding, **asked, **WORD)
    assert (await check_readings(pool, NOW + 9 * MINUTE)).opened == 0


async def test_what_changed_while_a_person_looked_is_not_believed_blindly(pool, wire):
    for minute, value in enumerate((900_000, 5, 6, 7)):
        await wire.count(minute, value)
    finding = await open_finding(pool, NOW + 4 * MINUTE)
    async with pool.connection() as conn:
        shown = await decide_finding.preview_rebase(conn, finding)
    for minute, value in enumerate((1, 2, 3), start=4):
        await wire.count(minute, value)  # it began once more
    async with pool.connection() as conn:
        with pytest.raises(NothingToBelieve):
            await decide_finding.rebase_counter(
                conn, finding, cause="reset", from_at=shown.from_at, base_value=shown.base_value, **WORD
            )
        assert await one(conn, "SELECT count(*) FROM meter_gateway.counter_rebase") == (0,)


async def test_only_a_counter_in_doubt_is_rebased(pool, wire):
    await wire.say(Event(DRN, topics.TAMPER, to_millis(NOW), {"active": True}))
    finding = await open_finding(pool)
    async with pool.connection() as conn:
        assert await decide_finding.preview_rebase(conn, finding) is None
