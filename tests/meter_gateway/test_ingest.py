import json
from datetime import timedelta

import pytest

from meter_gateway import command, command_store, edge_store, meter_store
from meter_gateway.message_key import make_ranges, to_millis
from meter_gateway.store_batch import sort_messages, store_batch
from meter_gateway.topics import Birth, Death, Event, Progress, Reading, Uplink, encode, up_topic
from tests.meter_gateway.places import NOW, make_modbus_meter, make_mqtt_meter, make_site

DRN = "06000000011"


def ms(seconds=0.0):
    return to_millis(NOW + timedelta(seconds=seconds))


def uplink(*records, edge=DRN, seq=1, boot=1, historical=False):
    return up_topic(edge, Uplink), encode(Uplink(edge, boot, seq, ms(), list(records), historical=historical))


async def rows(conn, query, *values):
    return await (await conn.execute(query, values)).fetchall()


async def letters(conn):
    return [row[0] for row in await rows(conn, "SELECT reason FROM meter_gateway.dead_letter ORDER BY id")]


async def test_a_batch_is_stored_once_and_receipted_twice(conn):
    meter = await make_mqtt_meter(conn)
    message = uplink(Reading(DRN, "credit", ms(), 5000), Reading(DRN, "counter", ms(), 70_000))
    for _ in range(2):
        stored = await store_batch(conn, [message, message], NOW)
        assert make_ranges(stored.receipts) == {(DRN, 1): [(1, 1)]}
    assert await rows(conn, "SELECT channel, value, quality FROM meter_gateway.reading ORDER BY channel") == [
        ("counter", 70_000, "valid"),
        ("credit", 5000, "valid"),
    ]
    state = await meter_store.find_state(conn, meter.id)
    assert (state.credit, state.counter, state.link_up, state.supply_on) == (5000, 70_000, True, True)
    assert await letters(conn) == []


async def test_same_reading_other_value_is_kept_beside(conn):
    await make_mqtt_meter(conn)
    await store_batch(conn, [uplink(Reading(DRN, "credit", ms(), 5))], NOW)
    await store_batch(conn, [uplink(Reading(DRN, "credit", ms(), 5), seq=2)], NOW)
    await store_batch(conn, [uplink(Reading(DRN, "credit", ms(), 6), seq=3)], NOW)
    assert await rows(conn, "SELECT value, kept_value FROM meter_gateway.reading_conflict") == [(6, 5)]
    assert await rows(conn, "SELECT value FROM meter_gateway.reading") == [(5,)]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Reading("06000000099", "credit", ms(), 1), "no such meter"),
        (Reading("06000000029", "credit", ms(), 1), "not a meter of"),
        (Reading(DRN, "credit", ms(-31 * 86400), 1), "older than 30 days"),
        (Reading(DRN, "credit", ms(301), 1), "from the future"),
        (Reading(DRN, "relay", ms(), 7), "relay outside"),
        (Progress(4711, DRN, "VERIFIED", ms()), "no command 4711"),
    ],
)
async def test_what_cannot_be_stored_is_parked_with_its_reason(conn, record, reason):
    await make_mqtt_meter(conn)
    _, bus_id = await make_site(conn)
    await make_modbus_meter(conn, bus_id)
    good = Reading(DRN, "credit", ms(1), 9)
    stored = await store_batch(conn, [uplink(record, good)], NOW)
    assert set(stored.receipts) == {(DRN, 1, 1)}, "the edge must not send it for ever"
    assert [letter for letter in await letters(conn) if reason in letter]
    assert await rows(conn, "SELECT value FROM meter_gateway.reading") == [(9,)]


@pytest.mark.parametrize(
    ("topic", "payload", "receipts"),
    [
        ("rsd/1/up/x/data", b"not json", set()),
        ("rsd/1/up/x/data", b"\xff\xfe", set()),
        ("rsd/1/up/x/data", b"[" * 5000, set()),
        ("rsd/1/up/x/nonsense", b"{}", set()),
        ("something/else", b"{}", set()),
        (
            "rsd/1/up/x/data",
            json.dumps({"edge": "x", "boot": 1, "seq": 7, "records": 3}).encode(),
            {("x", 1, 7)},
        ),
        ("rsd/1/up/y/data", json.dumps({"edge": "x", "boot": 1, "seq": 7, "records": 3}).encode(), set()),
        (
            "rsd/1/up/a\n/data",
            json.dumps({"edge": "a\n", "boot": 1, "seq": 7, "sent": 1, "records": []}).encode(),
            set(),
        ),
    ],
)
async def test_poison_is_parked(conn, topic, payload, receipts):
    stored = await store_batch(conn, [(topic, payload)], NOW)
    assert set(stored.receipts) == receipts
    assert await rows(conn, "SELECT topic, payload FROM meter_gateway.dead_letter") == [(topic, payload)]


async def test_what_is_parked_is_in_the_ledger_and_said_again_is_not_parked_twice(conn):
    await make_mqtt_meter(conn)
    topic, good = uplink(Reading(DRN, "credit", ms(), 1), seq=2)
    bad = json.dumps({"edge": DRN, "boot": 1, "seq": 1, "records": 3}).encode()
    beside = good.replace(b'"value":1', b'"value":null')
    for letters_now in (2, 0):
        stored = await store_batch(conn, [(topic, bad), (topic, good), (topic, beside), (topic, bad)], NOW)
        assert stored.receipts == [(DRN, 1, 1), (DRN, 1, 2)]
        assert stored.dead_letters == letters_now
    assert await rows(conn, "SELECT payload FROM meter_gateway.dead_letter") == [(bad,), (beside,)]
    assert await rows(conn, "SELECT seq FROM meter_gateway.edge_message ORDER BY seq") == [(1,), (2,)]
    assert await rows(conn, "SELECT value FROM meter_gateway.reading") == [(1,)]


async def test_late_readings_do_not_turn_the_state_back(conn):
    meter = await make_mqtt_meter(conn)
    await store_batch(conn, [uplink(Reading(DRN, "credit", ms(), 100))], NOW)
    late = [Reading(DRN, "credit", ms(-60), 500), Event(DRN, "3.26.0.85", ms(-60))]
    await store_batch(conn, [uplink(*late, seq=2, historical=True)], NOW)
    state = await meter_store.find_state(conn, meter.id)
    assert (state.credit, state.supply_on, state.link_up) == (100, True, True)


async def test_counter_that_falls_or_leaps_is_suspect_and_not_built_upon(conn):
    meter = await make_mqtt_meter(conn)
    values = [(0, 1_000_000), (30, 1_000_010), (60, 0), (90, 90_000_000), (120, 1_000_020)]
    for seq, (second, value) in enumerate(values):
        await store_batch(conn, [uplink(Reading(DRN, "counter", ms(second), value), seq=seq)], NOW)
    found = await rows(conn, "SELECT value, quality FROM meter_gateway.reading ORDER BY occurred_at")
    assert found == [
        (1_000_000, "valid"),
        (1_000_010, "valid"),
        (0, "suspect"),
        (90_000_000, "suspect"),
        (1_000_020, "valid"),
    ]
    assert (await meter_store.find_state(conn, meter.id)).counter == 1_000_020
    told = await rows(conn, "SELECT code, detail FROM meter_gateway.meter_event ORDER BY id")
    assert told == [
        ("raseed.counter_suspect", {"value": 0, "believed": 1_000_010}),
        ("raseed.counter_believed", {"value": 1_000_020, "believed": 1_000_010}),
    ]


async def test_a_doubt_that_came_while_a_batch_read_is_not_undone_by_it(conn, monkeypatch):
    meter = await make_mqtt_meter(conn)
    await store_batch(conn, [uplink(Reading(DRN, "counter", ms(), 70_000))], NOW)
    read = edge_store.list_spoken_meters

    async def read_before_another_one_wrote(conn, drns):
        found = await read(conn, drns)
        await conn.execute("UPDATE meter_gateway.meter_state SET counter_suspect = true")
        return found

    monkeypatch.setattr(edge_store, "list_spoken_meters", read_before_another_one_wrote)
    await store_batch(conn, [uplink(Reading(DRN, "credit", ms(), 5), seq=2)], NOW)
    state = await meter_store.find_state(conn, meter.id)
    assert (state.credit, state.counter_suspect) == (5, True)


async def test_a_counter_that_began_again_is_believed_when_a_person_says_so(conn):
    meter = await make_mqtt_meter(conn)

    async def count(second, value):
        message = uplink(Reading(DRN, "counter", ms(second), value), seq=second)
        await store_batch(conn, [message], NOW)
        state = await meter_store.find_state(conn, meter.id)
        return state.counter, state.counter_suspect

    assert await count(1, 1_000_000) == (1_000_000, False)
    assert await count(2, 5) == (1_000_000, True)
    assert await count(3, 6) == (1_000_000, True)
    await meter_store.forget_counter(conn, meter.id)
    assert await count(4, 7) == (7, False)
    assert len(await rows(conn, "SELECT FROM meter_gateway.meter_event")) == 2


async def test_birth_death_and_the_late_death_of_an_older_session(conn):
    meter = await make_mqtt_meter(conn)

    def birth(session, boot=1):
        return up_topic(DRN, Birth), encode(Birth(DRN, "meter", boot, session, ms()))

    def death(session, boot=1):
        return up_topic(DRN, Death), encode(Death(DRN, boot, session))

    async def online():
        return (await rows(conn, "SELECT online FROM meter_gateway.edge"))[0][0]

    stored = await store_batch(conn, [birth(1)], NOW)
    assert [one.edge for one in stored.births] == [DRN]
    await store_batch(conn, [birth(2), death(1)], NOW)
    assert await online()
    assert (await store_batch(conn, [birth(1)], NOW)).births == [], "an old birth is no birth"
    await store_batch(conn, [death(2)], NOW)
    assert not await online()
    assert not (await meter_store.find_state(conn, meter.id)).link_up
    await store_batch(conn, [birth(1, boot=2)], NOW + timedelta(seconds=1))
    assert await online()
    assert (await meter_store.find_state(conn, meter.id)).link_up


async def test_what_was_said_before_a_death_in_the_same_batch_does_not_raise_the_dead(conn):
    meter = await make_mqtt_meter(conn)
    birth, again = (
        (up_topic(DRN, Birth), encode(Birth(DRN, "meter", 1, session, ms()))) for session in (1, 2)
    )
    death = up_topic(DRN, Death), encode(Death(DRN, 1, 1))
    await store_batch(conn, [birth], NOW)

    async def after(minutes, *messages):
        at = NOW + timedelta(minutes=minutes)
        data = uplink(Reading(DRN, "credit", to_millis(at), 5), seq=minutes)
        await store_batch(conn, [data, *messages], at)
        state = await meter_store.find_state(conn, meter.id)
        return (await rows(conn, "SELECT online FROM meter_gateway.edge"))[0][0], state.link_up

    assert await after(1, death) == (False, False)
    assert await after(2) == (True, True), "who speaks is there"
    assert await after(3, death, again) == (True, True)
    assert await after(4, death) == (True, True), "of a session that is over"


@pytest.mark.parametrize("tid", ["f" * 8000, "12 345", True, -1, 1.5, {"a": 1}, 2**60, "9" * 17])
async def test_a_token_event_whose_tid_is_none_is_parked_and_the_rest_stored(conn, tid):
    await make_mqtt_meter(conn)
    await store_batch(
        conn,
        [
            uplink(
                Event(DRN, "raseed.token", ms(), {"tid": tid, "result": "ACCEPT"}),
                Event(DRN, "raseed.token", ms(1), {"tid": 17_000_000, "result": "ACCEPT"}),
            )
        ],
        NOW,
    )
    assert await letters(conn) == ["a tid that is none"]
    assert await rows(conn, "SELECT detail ->> 'tid' FROM meter_gateway.meter_event") == [("17000000",)]


async def test_birth_of_a_stranger_is_parked(conn):
    topic, payload = up_topic("stranger", Birth), encode(Birth("stranger", "gateway", 1, 1, ms()))
    assert (await store_batch(conn, [(topic, payload)], NOW)).births == []
    assert await letters(conn) == ["no gateway is called stranger"]


async def test_events_tell_supply_tamper_relay_and_token(conn):
    meter = await make_mqtt_meter(conn)
    await store_batch(
        conn,
        [
            uplink(
                Event(
                    DRN,
                    "raseed.token",
                    ms(1),
                    {"tid": 5, "result": "ACCEPT", "carrier": "keypad", "credit": 42},
                ),
                Event(DRN, "raseed.relay", ms(2), {"relay": 0, "reason": "no_credit", "load": 0}),
                Event(DRN, "3.12.0.257", ms(3), {"active": True}),
                Event(DRN, "3.26.0.85", ms(4)),
            )
        ],
        NOW,
    )
    state = await meter_store.find_state(conn, meter.id)
    assert (state.credit, state.relay, state.relay_reason, state.tamper) == (42, 0, "no_credit", True)
    assert (state.supply_on, state.link_up) == (False, False)
    later = NOW + timedelta(seconds=10)
    await store_batch(conn, [uplink(Event(DRN, "3.26.0.216", ms(9)), seq=2)], later)
    state = await meter_store.find_state(conn, meter.id)
    assert (state.supply_on, state.link_up, state.last_seen_at) == (True, True, later)


async def test_event_with_a_broken_clock_is_stored_with_ours(conn):
    await make_mqtt_meter(conn)
    await store_batch(conn, [uplink(Event(DRN, "raseed.token", 5000, {"result": "ACCEPT"}))], NOW)
    assert await rows(conn, "SELECT occurred_at, detail FROM meter_gateway.meter_event") == [
        (NOW, {"result": "ACCEPT", "reported_at": 5000})
    ]


async def test_a_clock_that_its_edge_does_not_trust_dates_nothing(conn):
    meter = await make_mqtt_meter(conn)
    order = await command.order_command(
        conn,
        meter_id=meter.id,
        kind="read_now",
        idempotency_key="k",
        requested_by="t",
        now=NOW,
        expires_at=NOW + timedelta(hours=1),
    )
    records = [
        Reading(DRN, "counter", ms(), 9_000),
        Event(DRN, "3.12.0.257", ms(-3600), {"active": True}),
        Progress(order.id, DRN, "VERIFIED", ms(-3600)),
    ]
    message = encode(Uplink(DRN, 1, 1, ms(), records, clock_ok=False))
    await store_batch(conn, [(up_topic(DRN, Uplink), message)], NOW)
    assert await rows(conn, "SELECT quality FROM meter_gateway.reading") == [("suspect",)]
    assert (await meter_store.find_state(conn, meter.id)).counter is None
    assert await rows(conn, "SELECT occurred_at FROM meter_gateway.meter_event") == [(NOW,)]
    steps = "SELECT occurred_at FROM meter_gateway.meter_command_step WHERE state = 'VERIFIED'"
    assert await rows(conn, steps) == [(NOW,)]


async def test_progress_settles_a_command_and_tells_the_state(conn):
    meter = await make_mqtt_meter(conn)
    order = await command.order_command(
        conn,
        meter_id=meter.id,
        kind="relay_open",
        idempotency_key="k",
        requested_by="t",
        now=NOW,
        expires_at=NOW + timedelta(hours=1),
    )
    final = {"result": "DONE", "credit": 7, "relay": 0, "load": 0}
    message = uplink(
        Progress(order.id, DRN, "ACCEPTED", ms(1)),
        Progress(order.id, DRN, "WRITTEN", ms(2)),
        Progress(order.id, DRN, "VERIFIED", ms(3), final),
    )
    await store_batch(conn, [message], NOW)
    settled = await command_store.get_command(conn, order.id)
    assert (settled.state, settled.result) == ("VERIFIED", final)
    assert (await meter_store.find_state(conn, meter.id)).relay == 0
    await store_batch(conn, [uplink(Progress(order.id, DRN, "REJECTED", ms(4)), seq=2)], NOW)
    assert (await command_store.get_command(conn, order.id)).state == "VERIFIED"


async def test_gateway_speaks_for_its_meters_only_and_its_death_says_nothing_of_supply(conn):
    _, bus_id = await make_site(conn)
    meter = await make_modbus_meter(conn, bus_id)
    record = Reading(meter.drn, "credit", ms(), 3)
    await store_batch(
        conn,
        [
            (up_topic("site-1", Birth), encode(Birth("site-1", "gateway", 1, 1, ms()))),
            uplink(record, edge="site-1"),
            uplink(record, edge="site-2"),
        ],
        NOW,
    )
    assert await letters(conn) == ["not a meter of site-2"]
    later = NOW + timedelta(seconds=5)
    await store_batch(conn, [(up_topic("site-1", Death), encode(Death("site-1", 1, 1)))], later)
    state = await meter_store.find_state(conn, meter.id)
    assert (state.link_up, state.supply_on) == (False, True)


def test_a_message_twice_in_a_batch_counts_once():
    message = uplink(Reading(DRN, "credit", ms(), 1))
    assert len(sort_messages([message, message]).uplinks) == 1


async def test_old_ledger_entries_are_forgotten_in_slices(conn):
    keys = [("e", 1, seq) for seq in range(5)]
    assert await edge_store.insert_messages(conn, keys, NOW) == set(keys)
    assert await edge_store.insert_messages(conn, keys, NOW) == set()
    assert await edge_store.delete_old_messages(conn, NOW, limit=3) == 0
    assert await edge_store.delete_old_messages(conn, NOW + timedelta(days=1), limit=3) == 3
