"""`raseed order`, as an operator types it, on a real database."""

import asyncio
import json

import psycopg
import pytest

from meter_gateway import meter_store
from raseed import cli
from raseed.order_tool import limits_argument
from tests.meter_gateway.places import NOW, make_keypad_meter, make_mqtt_meter, make_usage_point


@pytest.fixture
def run(database_url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", database_url)

    async def typed(*words):
        code = await asyncio.to_thread(cli.main, ["order", *words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return typed


@pytest.fixture
async def meter(database_url):
    async with await psycopg.AsyncConnection.connect(database_url) as conn:
        return await make_mqtt_meter(conn)


@pytest.mark.parametrize(
    ("words", "argument"),
    [
        (("read_now",), ""),
        (("clock",), ""),
        (("limits", "--power", "5000"), "power=5000"),
        (("limits", "--low", "9000", "2000"), "low=9000,2000"),
        (("relay_open",), ""),
        (("relay_close",), ""),
    ],
)
async def test_an_order_is_put_in_line_and_its_answer_awaited(run, meter, conn, words, argument):
    code, out, _ = await run(meter.drn, *words, "--wait", "0.3", "--json")
    assert code == 3, "nobody is there to answer"
    row = json.loads(out)[0]
    assert (row["kind"], row["state"]) == (words[0], "CREATED")
    cursor = await conn.execute(
        "SELECT argument FROM meter_gateway.meter_command WHERE id = %s", (row["id"],)
    )
    assert (await cursor.fetchone())[0] == argument


async def test_the_same_key_is_one_order_and_it_can_be_called_back(run, meter):
    for _ in range(2):
        await run(meter.drn, "clock", "--key", "monday")
    _, out, _ = await run(meter.drn, "list", "--json")
    assert len(json.loads(out)) == 1
    number = str(json.loads(out)[0]["id"])
    code, out, _ = await run(meter.drn, "cancel", "--id", number)
    assert code == 0
    assert "CANCELLED" in out
    code, out, _ = await run(meter.drn, "clock", "--key", "monday")
    assert code == 1, "an order that was called back is not given again under its name"


async def test_what_has_left_is_not_called_back(run, meter, conn):
    _, out, _ = await run(meter.drn, "clock", "--json")
    number = json.loads(out)[0]["id"]
    await conn.execute("UPDATE meter_gateway.meter_command SET state = 'SENT' WHERE id = %s", (number,))
    await conn.commit()
    code, _, err = await run(meter.drn, "cancel", "--id", str(number))
    assert code == 1
    assert "SENT" in err


async def test_refusals_are_told_in_words(run, meter, conn):
    keypad = await make_keypad_meter(conn)
    await conn.execute(
        "INSERT INTO meter_gateway.meter_state (meter_id, tamper) VALUES (%s, true)", (meter.id,)
    )
    await conn.commit()
    for words, says in (
        (("04999999994", "clock"), "04999999994"),
        ((keypad.drn, "clock"), "keypad"),
        ((meter.drn, "relay_close"), "tamper"),
        ((meter.drn, "limits"), "--power"),
        ((meter.drn, "limits", "--low", "1", "2"), "second mark"),
        ((meter.drn, "cancel"), "--id"),
        ((meter.drn, "cancel", "--id", "999999"), "999999"),
        ((meter.drn, "clock", "--minutes", "0"), "a week"),
    ):
        code, _, err = await run(*words)
        assert code == 1
        assert says in err


async def test_a_critical_customer_is_not_cut(run, meter, conn):
    place = await make_usage_point(conn)
    await meter_store.install_meter(
        conn, meter_id=meter.id, usage_point_id=place, installed_at=NOW, installed_by="test"
    )
    await conn.commit()
    assert (await run(meter.drn, "relay_open"))[0] == 3
    await conn.execute("UPDATE meter_gateway.service_location SET is_critical = true")
    await conn.commit()
    code, _, err = await run(meter.drn, "relay_open")
    assert code == 1
    assert "critical" in err


def test_limits_are_one_or_the_other():
    assert limits_argument(0, None) == "power=0"
    with pytest.raises(ValueError, match="one of them"):
        limits_argument(1, [2, 1])
