import asyncio
from datetime import timedelta

import pytest

from meter_gateway import command, command_store
from meter_gateway.command_state import CommandEvent
from meter_gateway.errors import (
    CommandConflict,
    CommandNotFound,
    CommandNotOpen,
    InvalidCommand,
    MeterHasNoLink,
    MeterNotFound,
    MeterTampered,
)
from tests.meter_gateway.places import NOW, make_keypad_meter, make_modbus_meter, make_mqtt_meter, make_site

TOKEN = "12345678901234567890"


def order(conn, meter, **changes):
    given = {
        "meter_id": meter.id,
        "kind": "token",
        "argument": TOKEN,
        "idempotency_key": "vend:1",
        "requested_by": "test",
        "now": NOW,
        "expires_at": NOW + timedelta(hours=1),
    }
    return command.order_command(conn, **{**given, **changes})


def sendable(conn):
    return command_store.lock_due_commands(conn, now=NOW, send_before=NOW, ask_before=NOW, limit=10)


async def steps_of(conn, command_id):
    cursor = await conn.execute(
        "SELECT state FROM meter_gateway.meter_command_step WHERE command_id = %s ORDER BY id", (command_id,)
    )
    return [row[0] for row in await cursor.fetchall()]


async def test_same_key_same_content_is_one_command(conn):
    meter = await make_mqtt_meter(conn)
    first = await order(conn, meter)
    again = await order(conn, meter, now=NOW + timedelta(minutes=1), requested_by="other")
    assert first == again
    assert first.state == "CREATED"
    assert await steps_of(conn, first.id) == ["CREATED"]
    assert TOKEN not in repr(first)


@pytest.mark.parametrize("changes", [{"argument": "0" * 20}, {"kind": "relay_open", "argument": ""}])
async def test_same_key_other_content_is_a_conflict(conn, changes):
    meter = await make_mqtt_meter(conn)
    await order(conn, meter)
    with pytest.raises(CommandConflict):
        await order(conn, meter, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "explode"},
        {"argument": "123"},
        {"argument": "١٢٣٤٥٦٧٨٩٠١٢٣٤٥٦٧٨٩٠"},
        {"kind": "relay_open"},
        {"kind": "clock"},
        {"kind": "limits", "argument": ""},
        {"kind": "limits", "argument": "power=-1"},
        {"kind": "limits", "argument": "power=٥"},
        {"kind": "limits", "argument": "low=1,2"},
        {"kind": "limits", "argument": "power=4294967296"},
        {"idempotency_key": ""},
        {"expires_at": NOW},
        {"now": NOW.replace(tzinfo=None)},
    ],
)
async def test_nonsense_is_refused_and_changes_nothing(conn, changes):
    meter = await make_mqtt_meter(conn)
    with pytest.raises(InvalidCommand):
        await order(conn, meter, **changes)
    assert await command_store.list_commands_of_meter(conn, meter.id) == []


async def test_meter_without_link_is_refused(conn):
    meter = await make_keypad_meter(conn)
    with pytest.raises(MeterHasNoLink):
        await order(conn, meter)
    with pytest.raises(MeterNotFound):
        await order(conn, meter, meter_id=10**9)


async def test_cancel_only_before_it_left(conn):
    meter = await make_mqtt_meter(conn)
    made = await order(conn, meter)
    cancelled = await command.cancel(conn, made.id, cancelled_by="agent", now=NOW)
    assert (cancelled.state, cancelled.result["reason"]) == ("CANCELLED", "cancelled")
    assert await command.cancel(conn, made.id, cancelled_by="agent", now=NOW) == cancelled, "twice is once"
    other = await order(conn, meter, idempotency_key="vend:2")
    await command_store.mark_sent(conn, [other.id], NOW)
    with pytest.raises(CommandNotOpen):
        await command.cancel(conn, other.id, cancelled_by="agent", now=NOW)
    with pytest.raises(CommandNotFound):
        await command.cancel(conn, 10**9, cancelled_by="agent", now=NOW)


@pytest.mark.parametrize(
    ("kind", "argument"), [("clock", ""), ("limits", "power=4000"), ("limits", "low=9,2")]
)
async def test_clock_and_limits_are_orders_like_others(conn, kind, argument):
    meter = await make_mqtt_meter(conn)
    made = await order(conn, meter, kind=kind, argument=argument)
    assert (made.kind, made.argument, made.state) == (kind, argument, "CREATED")


async def test_a_tampered_meter_is_not_ordered_to_close(conn):
    meter = await make_mqtt_meter(conn)
    await conn.execute(
        "INSERT INTO meter_gateway.meter_state (meter_id, tamper) VALUES (%s, true)", (meter.id,)
    )
    with pytest.raises(MeterTampered):
        await order(conn, meter, kind="relay_close", argument="")
    assert (await order(conn, meter, kind="relay_open", argument="")).state == "CREATED"


async def test_a_command_called_back_makes_way_for_the_next(conn):
    meter = await make_mqtt_meter(conn)
    first = await order(conn, meter)
    second = await order(conn, meter, idempotency_key="vend:2")
    assert [one.id for one in await sendable(conn)] == [first.id]
    await command.cancel(conn, first.id, cancelled_by="agent", now=NOW)
    assert [one.id for one in await sendable(conn)] == [second.id]


@pytest.mark.parametrize("first", ["cancel", "dispatch"])
async def test_cancel_and_dispatch_race_for_the_row(pool, first):
    """Whoever has the row first decides; the other finds the command gone, or not to be called back."""
    async with pool.connection() as conn:
        made = await order(conn, await make_mqtt_meter(conn))
    async with pool.connection() as one, pool.connection() as other:
        async with one.transaction():
            if first == "cancel":
                await command.cancel(one, made.id, cancelled_by="agent", now=NOW)
                assert await sendable(other) == []
            else:
                await command_store.mark_sent(one, [found.id for found in await sendable(one)], NOW)
                late = asyncio.create_task(command.cancel(other, made.id, cancelled_by="agent", now=NOW))
                await asyncio.sleep(0.05)
                assert not late.done(), "it waits for the dispatcher's word"
        if first == "cancel":
            assert await sendable(other) == []
        else:
            with pytest.raises(CommandNotOpen):
                await late
    async with pool.connection() as conn:
        state = (await command_store.get_command(conn, made.id)).state
    assert state == {"cancel": "CANCELLED", "dispatch": "SENT"}[first]


async def test_deadline_then_late_result_settles(conn):
    meter = await make_mqtt_meter(conn)
    silent = await order(conn, meter)
    accepted = await order(conn, meter, idempotency_key="vend:2")
    await command.apply_event(conn, accepted.id, CommandEvent.EDGE_ACCEPTED, at=NOW, detail={})
    assert await command.expire_commands(conn, NOW + timedelta(hours=2)) == 2
    assert (await command_store.get_command(conn, silent.id)).state == "EXPIRED"
    assert (await command_store.get_command(conn, accepted.id)).state == "UNKNOWN"
    late = NOW + timedelta(hours=3)
    await command.apply_event(conn, accepted.id, CommandEvent.EDGE_VERIFIED, at=late, detail={"credit": 5})
    settled = await command_store.get_command(conn, accepted.id)
    assert (settled.state, settled.result) == ("VERIFIED", {"credit": 5})
    assert await steps_of(conn, accepted.id) == ["CREATED", "ACCEPTED", "UNKNOWN", "VERIFIED"]
    assert await command.expire_commands(conn, NOW + timedelta(hours=4)) == 0


async def test_progress_of_another_meter_is_refused(conn):
    meter, other = await make_mqtt_meter(conn), await make_mqtt_meter(conn, "06000000045")
    made = await order(conn, meter)
    with pytest.raises(CommandNotFound):
        await command.apply_event(
            conn, made.id, CommandEvent.EDGE_VERIFIED, meter_id=other.id, at=NOW, detail={}
        )


async def due(conn, now, ask_s=60):
    return [
        row.id
        for row in await command_store.lock_due_commands(
            conn,
            now=now,
            send_before=now - timedelta(seconds=5),
            ask_before=now - timedelta(seconds=ask_s),
            limit=10,
        )
    ]


async def test_only_the_oldest_open_command_of_a_meter_is_due(conn):
    _, bus_id = await make_site(conn)
    meter, wired = await make_mqtt_meter(conn), await make_modbus_meter(conn, bus_id)
    first = await order(conn, meter)
    second = await order(conn, meter, idempotency_key="vend:2")
    third = await order(conn, wired, idempotency_key="vend:3")
    assert await due(conn, NOW) == [first.id, third.id]
    await command_store.mark_sent(conn, [first.id, third.id], NOW)
    assert await due(conn, NOW + timedelta(seconds=4)) == []
    assert await due(conn, NOW + timedelta(seconds=5)) == [first.id, third.id]
    await command.apply_event(conn, first.id, CommandEvent.EDGE_ACCEPTED, at=NOW, detail={})
    assert await due(conn, NOW + timedelta(seconds=60)) == [third.id]
    await command.apply_event(conn, first.id, CommandEvent.EDGE_UNKNOWN, at=NOW, detail={})
    assert await due(conn, NOW + timedelta(seconds=61)) == [first.id, second.id, third.id]
