from datetime import timedelta

from psycopg.types.json import Jsonb

from portal.my_sale_store import SaleEntry, list_entries
from portal.sale_words import entry_tone, entry_words
from portal.sell import deliver_token
from portal.token_words import OTHER_RESULT, RESULT_WORDS, result_words
from tests.billing.world import NOW, Clock, make_house, make_tariffs, make_vault
from tests.portal.sales import buy, event_of, settle
from token_engine.token_result import TokenResult


async def test_the_timeline_of_a_sale_holds_money_token_message_and_meter_in_order(pool) -> None:
    async with pool.connection() as conn:
        await make_tariffs(conn)
        house = await make_house(conn)
    clock = Clock()
    quote, payment = await buy(pool, house)
    await settle(pool, event_of(payment), now=clock.forward(seconds=20))
    await deliver_token(pool, make_vault(), quote.vend_id, clock)
    at = clock.forward(seconds=5)
    async with pool.connection() as conn:
        await conn.execute(
            "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, recorded_at, detail)"
            " SELECT meter_id, 'e', 'raseed.token', %s, %s, %s FROM billing.vend",
            (
                at,
                at + timedelta(seconds=1),
                Jsonb({"tid": await tid_of(conn), "result": "ACCEPT", "carrier": "keypad"}),
            ),
        )
        entries = await list_entries(conn, quote.vend_id)
    said = [(entry.source, entry.what) for entry in entries]
    assert said[0] == ("payment", "STARTED")
    assert said[1] == ("payment", "CONFIRMED")
    assert said.index(("vend", "VENDED")) < said.index(("meter", "accept"))
    assert ("message", "token") in said
    assert entries[-1].detail == "keypad"
    assert [entry.occurred_at for entry in entries] == sorted(entry.occurred_at for entry in entries)
    assert entries[0].occurred_at == NOW
    for entry in entries:
        assert entry_words(entry) != entry.what, f"{entry} has no words"


async def tid_of(conn) -> int:
    return (await (await conn.execute("SELECT tid FROM billing.vend")).fetchone())[0]


def test_every_answer_of_a_meter_has_words() -> None:
    assert {result.value for result in TokenResult} == set(RESULT_WORDS)
    assert result_words("ACCEPT") == RESULT_WORDS["accept"]
    assert result_words("never heard of") == result_words(None) == OTHER_RESULT


def test_tones_tell_good_from_bad_and_open() -> None:
    def tone(source: str, what: str) -> str:
        return entry_tone(SaleEntry(NOW, source, what, ""))

    assert tone("meter", "accept") == tone("vend", "VENDED") == "is-ok"
    assert tone("meter", "crc_error") == tone("payment", "DECLINED") == "is-bad"
    assert tone("vend", "UNKNOWN") == "is-warn"
    assert tone("command", "SENT") == "is-info"
