"""Key changes on a real database with meters that understand tokens: proof before credit, whatever comes between."""

import asyncio

import psycopg
import pytest

from billing import identity_store, key_change_store
from billing.errors import InvalidVend
from billing.key_change import MAX_ROUNDS, ChangeState
from billing.states import VendState
from billing.vend import make_quote
from meter_gateway.command import expire_commands
from meter_gateway.topics import TOKEN, Event
from portal import change_keys, sale_store, sell
from portal.field.remove_meter import FinalReading
from portal.sale import Outcome
from tests.billing.world import Clock, make_tariffs
from tests.portal.key_world import (
    MISSING_KRN,
    OTHER_SGC,
    follow,
    holds_issuing_key,
    identity_of,
    make_wired,
    ms,
    plan_change,
    rich_vault,
    run_wire,
    tell,
    type_in,
)
from tests.portal.sales import all_rows, buy, event_of, one, settle
from tests.portal.swap_world import take_down
from token_engine.errors import VaultTimeout

VAULT = rich_vault()


@pytest.fixture
async def wired(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
    return await make_wired(pool, VAULT)


async def progress_of(pool, wired, quote):
    async with pool.connection() as conn:
        sale = await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=wired.house.customer_id)
    return sale.progress.outcome, len(sale.row.first_tokens)


async def sell_to(pool, wired, clock, amount=5_000):
    quote, payment = await buy(pool, wired.house, amount, now=clock())
    await settle(pool, event_of(payment), now=clock())
    assert await sell.deliver_token(pool, VAULT, quote.vend_id, clock) is VendState.VENDED
    return quote


async def issue(pool, change, clock, vault=VAULT):
    return await change_keys.issue_change(pool, vault, change.id, clock)


async def commands(pool):
    rows = await all_rows(pool, "SELECT idempotency_key FROM meter_gateway.meter_command ORDER BY id")
    return [key.split(":")[0] for (key,) in rows]


async def credit_digits(pool):
    return await one(
        pool, "SELECT digits FROM billing.token WHERE purpose = 'credit' ORDER BY id DESC LIMIT 1"
    )


async def test_a_meter_on_its_stock_key_is_changed_before_its_first_credit(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
    wired, clock = await make_wired(pool, VAULT, kt=1), Clock()
    async with pool.connection() as conn:
        with pytest.raises(InvalidVend) as refused:
            await make_quote(
                conn,
                customer_id=wired.house.customer_id,
                meter_drn=wired.house.drn,
                amount_minor=5_000,
                now=clock(),
            )
        assert refused.value.code == "meter_not_commissioned"
        change = await change_keys.begin_commissioning(
            conn, meter_id=wired.meter_id, begun_by="engineer", now=clock()
        )
    async with pool.connection() as conn:
        assert (
            await change_keys.begin_commissioning(
                conn, meter_id=wired.meter_id, begun_by="engineer", now=clock()
            )
            is None
        )
    assert await issue(pool, change, clock) is ChangeState.ISSUED
    quote = await sell_to(pool, wired, clock)
    assert await commands(pool) == ["key-change", "key-change"]
    assert await progress_of(pool, wired, quote) == (Outcome.KEY_CHANGE, 2)
    assert await follow(pool, change, clock()) is ChangeState.ISSUED
    assert await run_wire(pool, wired, clock()) == ["FIRST_KCT", "ACCEPT"]
    assert wired.state.token.identity.kt == 2
    assert await follow(pool, change, clock()) is ChangeState.PROVEN
    assert await commands(pool) == ["key-change", "key-change", "vend"]
    before = wired.state.credit
    assert await run_wire(pool, wired, clock()) == ["ACCEPT"]
    assert wired.state.credit == before + quote.units_tenths * 100
    assert (await progress_of(pool, wired, quote))[0] is Outcome.APPLIED
    identity = await identity_of(pool, wired)
    assert (identity.kt, identity.pending) == (2, None)
    uses = await all_rows(pool, "SELECT purpose, used_by FROM billing.key_use ORDER BY id")
    assert uses == [("key_change", "engineer"), ("key_change", "engineer"), ("credit", "worker")]


async def test_a_makers_key_cannot_be_changed_without_its_maker(pool, wired):
    async with pool.connection() as conn:
        await conn.execute("UPDATE billing.sts_identity SET kt = 0")
        change = await change_keys.begin_commissioning(
            conn, meter_id=wired.meter_id, begun_by="engineer", now=Clock()()
        )
    assert await issue(pool, change, Clock()) is ChangeState.FAILED
    assert (
        await one(pool, "SELECT detail FROM billing.key_change_step ORDER BY id DESC LIMIT 1")
        == "unknown_key"
    )
    assert (await identity_of(pool, wired)).pending is None


@pytest.mark.parametrize(
    ("target", "ea", "sections"),
    [
        ({"krn": 2}, "07", 2),
        ({"ti": "07"}, "07", 2),
        ({"sgc": OTHER_SGC}, "07", 3),
        ({"sgc": OTHER_SGC, "krn": 3, "ti": "55", "ken": 254}, "11", 4),
    ],
)
async def test_every_kind_of_recode_reaches_the_meter(pool, target, ea, sections):
    async with pool.connection() as conn:
        await make_tariffs(conn)
    wired, clock = await make_wired(pool, VAULT, ea=ea), Clock()
    change = await plan_change(pool, wired, target)
    assert await issue(pool, change, clock) is ChangeState.ISSUED
    assert len(await run_wire(pool, wired, clock())) == sections
    assert await follow(pool, change, clock()) is ChangeState.PROVEN
    identity = await identity_of(pool, wired)
    for name, value in target.items():
        assert getattr(identity, name) == value
    assert holds_issuing_key(wired, identity)
    assert str(wired.state.token.identity.sgc) == identity.sgc
    await sell_to(pool, wired, clock)
    assert await run_wire(pool, wired, clock()) == ["ACCEPT"]


async def test_a_new_base_date_begins_its_own_tids_and_empties_the_meters_store(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
    clock = Clock(Clock()().replace(year=2020))
    async with pool.connection() as conn:
        await conn.execute("UPDATE billing.tariff SET valid_from = '2019-01-01T00:00:00Z'")
    wired = await make_wired(pool, VAULT, base_date=1993, krn=4)
    await sell_to(pool, wired, clock)
    await run_wire(pool, wired, clock())
    assert len(wired.state.token.tids) == 1
    old_tid = (await identity_of(pool, wired)).last_tid
    change = await plan_change(pool, wired, {"base_date": 2014, "krn": 1})
    assert await issue(pool, change, clock) is ChangeState.ISSUED
    await sell_to(pool, wired, clock)
    identity = await identity_of(pool, wired)
    assert (identity.base_date, identity.last_tid) == (1993, old_tid)
    assert identity.last_issuing_tid < old_tid
    await run_wire(pool, wired, clock())
    assert wired.state.token.tids == ()
    assert await follow(pool, change, clock()) is ChangeState.PROVEN
    assert await run_wire(pool, wired, clock()) == ["ACCEPT"]
    proven = await identity_of(pool, wired)
    assert (proven.base_date, proven.last_tid) == (2014, identity.last_issuing_tid)


async def test_the_message_says_which_to_enter_first_and_typing_them_proves_the_key(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    await sell_to(pool, wired, clock)
    body = await one(pool, "SELECT body FROM portal.message WHERE kind = 'token'")
    first = [d for (d,) in await all_rows(pool, "SELECT digits FROM billing.v_first_token ORDER BY place")]
    places = [
        body.index("\u00a0".join(d[i : i + 4] for i in range(0, 20, 4)))
        for d in (*first, await credit_digits(pool))
    ]
    assert places == sorted(places)
    assert "مفتاح" in body
    for digits in first:
        await type_in(pool, wired, digits, clock.forward(seconds=20))
    assert await follow(pool, change, clock()) is ChangeState.PROVEN
    assert (await run_wire(pool, wired, clock()))[-1] == "ACCEPT"


async def test_credit_that_was_typed_proves_the_key_too(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    await sell_to(pool, wired, clock)
    for (digits,) in await all_rows(pool, "SELECT digits FROM billing.v_first_token ORDER BY place"):
        wired.type_in(digits, clock())  # these reports are lost
    assert await type_in(pool, wired, await credit_digits(pool), clock()) == "ACCEPT"
    credit = wired.state.credit
    assert await follow(pool, change, clock()) is ChangeState.PROVEN
    said = await run_wire(pool, wired, clock())
    assert said[-1] == "USED_ERROR"
    assert wired.state.credit == credit


async def test_a_typed_tid_that_is_no_number_neither_proves_nor_breaks(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    for result, tid in (("FIRST_KCT", None), ("ACCEPT", "0x1F"), ("ACCEPT", "9" * 30), ("FIRST_KCT", None)):
        now = clock.forward(seconds=20)
        event = Event(wired.house.drn, TOKEN, ms(now), {"tid": tid, "result": result, "carrier": "keypad"})
        await tell(pool, wired, [event], now)
    assert await follow(pool, change, clock()) is ChangeState.ISSUED
    async with pool.connection() as conn:
        found = await key_change_store.list_typed(conn, change, change.begun_at)
    assert [one.tid for one in found] == [None, -1, -1, None]


async def test_credit_typed_too_early_proves_nothing(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    await sell_to(pool, wired, clock)
    assert await type_in(pool, wired, await credit_digits(pool), clock()) == "CRC_ERROR"
    assert await follow(pool, change, clock()) is ChangeState.ISSUED
    assert (await identity_of(pool, wired)).pending is not None


async def test_each_vend_carries_the_same_tokens_until_the_proof(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    for _ in range(2):
        await sell_to(pool, wired, clock)
        clock.forward(minutes=5)
    bodies = await all_rows(pool, "SELECT body FROM portal.message WHERE kind = 'token'")
    first = await all_rows(pool, "SELECT digits FROM billing.token WHERE purpose = 'key_change'")
    assert len(first) == 2
    assert all(body.count("•") == 2 for (body,) in bodies)
    await run_wire(pool, wired, clock())
    await follow(pool, change, clock())
    assert await run_wire(pool, wired, clock()) == ["ACCEPT", "ACCEPT"]
    await sell_to(pool, wired, clock)
    assert "•" not in await one(pool, "SELECT body FROM portal.message ORDER BY id DESC LIMIT 1")


async def test_a_refused_key_stops_the_credit_and_further_sales_until_a_person_decides(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    quote = await sell_to(pool, wired, clock)
    wrong, wired.state = wired.state, await spoil(pool, wired)
    assert await run_wire(pool, wired, clock()) == ["CRC_ERROR", "CRC_ERROR"]
    assert await follow(pool, change, clock()) is ChangeState.REFUSED
    assert await all_rows(pool, "SELECT state, reason FROM billing.held_token") == [("STOPPED", "CRC_ERROR")]
    assert "vend" not in await commands(pool)
    assert await progress_of(pool, wired, quote) == (Outcome.KEY_REFUSED, 2)
    with pytest.raises(InvalidVend) as refused:
        await buy(pool, wired.house, now=clock())
    assert refused.value.code == "meter_key_refused"
    async with pool.connection() as conn:
        with pytest.raises(InvalidVend) as lost:
            await change_keys.withdraw_change(conn, change.id, by="huda", reason="wrong meter", now=clock())
        assert lost.value.code == "tokens_under_new_key"
    wired.state = wrong  # the engineer put the right key back
    async with pool.connection() as conn:
        state = await change_keys.retry_change(conn, change.id, by="huda", reason="looked at it", now=clock())
    assert state is ChangeState.ISSUED
    assert await run_wire(pool, wired, clock()) == ["FIRST_KCT", "ACCEPT"]
    assert await follow(pool, change, clock()) is ChangeState.PROVEN
    assert await run_wire(pool, wired, clock()) == ["ACCEPT"]
    await buy(pool, wired.house, now=clock())


async def spoil(pool, wired):
    """The meter holds another key than the books say."""
    async with pool.connection() as conn:
        identity = await identity_store.get_identity(conn, wired.meter_id)
    from dataclasses import replace

    other = identity.identity_of(replace(identity.current, krn=3))
    return replace(wired.state, token=replace(wired.state.token, decoder_key=VAULT.decoder_key_for(other)))


async def test_a_silent_meter_is_asked_again_and_then_left_to_a_person(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    for _ in range(MAX_ROUNDS + 2):
        clock.forward(hours=25)
        async with pool.connection() as conn:
            await expire_commands(conn, clock())
        assert await follow(pool, change, clock()) is ChangeState.ISSUED
    assert len(await commands(pool)) == 2 * MAX_ROUNDS
    async with pool.connection() as conn:
        await change_keys.retry_change(conn, change.id, by="huda", reason="battery changed", now=clock())
    assert await run_wire(pool, wired, clock()) == ["FIRST_KCT", "ACCEPT"]
    assert await follow(pool, change, clock()) is ChangeState.PROVEN


async def test_a_keypad_meter_is_proven_by_a_persons_word(pool):
    async with pool.connection() as conn:
        await make_tariffs(conn)
    wired, clock = await make_wired(pool, VAULT, link="keypad", language="en"), Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    await sell_to(pool, wired, clock)
    assert await commands(pool) == []
    assert await all_rows(pool, "SELECT 1 FROM billing.held_token") == []
    assert "Then enter these" in await one(pool, "SELECT body FROM portal.message WHERE kind = 'token'")
    async with pool.connection() as conn:
        assert len(await change_keys.list_first_tokens(conn, wired.meter_id)) == 2
        with pytest.raises(InvalidVend):
            await change_keys.confirm_change(conn, change.id, by="huda", reason=" ", now=clock())
        assert (
            await change_keys.confirm_change(
                conn, change.id, by="huda", reason="read its display", now=clock()
            )
            is ChangeState.PROVEN
        )
        assert await change_keys.list_first_tokens(conn, wired.meter_id) == []


async def test_no_change_begins_under_an_open_sale(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    quote, payment = await buy(pool, wired.house)
    await settle(pool, event_of(payment))
    assert await issue(pool, change, clock) is ChangeState.PLANNED
    await sell.deliver_token(pool, VAULT, quote.vend_id, clock)
    assert await run_wire(pool, wired, clock()) == ["ACCEPT"]
    assert await issue(pool, change, clock) is ChangeState.ISSUED


async def test_no_change_begins_while_sold_credit_lies_in_a_drawer(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await sell_to(pool, wired, clock)
    clock.forward(hours=25)
    async with pool.connection() as conn:
        await expire_commands(conn, clock())
    assert await issue(pool, change, clock) is ChangeState.PLANNED
    assert await type_in(pool, wired, await credit_digits(pool), clock()) == "ACCEPT"
    assert await issue(pool, change, clock) is ChangeState.ISSUED


@pytest.mark.parametrize(
    ("word", "end", "state"),
    [
        ("taken", "keep", ChangeState.ISSUED),
        ("not_taken", "money", ChangeState.ISSUED),
        (
            "not_taken",
            "keep",
            ChangeState.PLANNED,
        ),  # it waits: the meter may come back and take the token yet
    ],
)
async def test_a_word_about_its_tokens_lets_a_change_begin(pool, wired, word, end, state):
    clock = Clock()
    await sell_to(pool, wired, clock)
    clock.forward(hours=25)
    final = FinalReading(1_000_000, 1_000, "display", word)
    await take_down(pool, wired.meter_id, final, settle=end, now=clock())
    change = await plan_change(pool, wired, {"krn": 2})
    assert await issue(pool, change, clock) is state


async def test_credit_that_nobody_enters_does_not_hold_up_a_recode_for_ever(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await sell_to(pool, wired, clock)
    clock.forward(days=46)
    assert await issue(pool, change, clock) is ChangeState.ISSUED


async def test_a_missing_vending_key_changes_nothing(pool, wired):
    change = await plan_change(pool, wired, {"krn": MISSING_KRN})
    assert await issue(pool, change, Clock()) is ChangeState.FAILED
    assert await issue(pool, change, Clock()) is ChangeState.FAILED
    assert (await identity_of(pool, wired)).pending is None
    assert await commands(pool) == []


async def test_withdrawn_before_any_token_under_it_the_old_key_stays(pool, wired):
    clock = Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    async with pool.connection() as conn:
        assert (
            await change_keys.withdraw_change(conn, change.id, by="huda", reason="too early", now=clock())
            is ChangeState.WITHDRAWN
        )
    assert holds_issuing_key(wired, await identity_of(pool, wired))
    assert await plan_change(pool, wired, {"krn": 3}) is not None


async def test_one_change_at_a_time(pool, wired):
    assert await plan_change(pool, wired, {"krn": 2}) is not None
    assert await plan_change(pool, wired, {"krn": 3}) is None


class SilentVault:
    def __init__(self, plan):
        self.plan = list(plan)

    async def fetch_key_change(self, request_id):
        return await VAULT.fetch_key_change(request_id)

    async def issue_key_change(self, request):
        word = self.plan.pop(0)
        issued = await VAULT.issue_key_change(request)
        if word == "lost":
            raise VaultTimeout("the answer was lost")
        return issued


async def test_a_lost_answer_of_the_vault_is_asked_for_again(pool, wired):
    vault, clock = SilentVault(["lost", "ok"]), Clock()
    change = await plan_change(pool, wired, {"krn": 2})
    assert await issue(pool, change, clock, vault) is ChangeState.PLANNED
    assert (await identity_of(pool, wired)).pending is None
    assert await issue(pool, change, clock, vault) is ChangeState.ISSUED
    assert vault.plan == ["ok"]  # the first answer was fetched, not made anew


@pytest.mark.parametrize(
    "place",
    [
        "_ask",
        "insert_service_token",
        "insert_key_use",
        "mark_pending",
        "mark_change",
        "order_command",
        "mark_round",
    ],
)
async def test_a_kill_while_issuing_is_made_good(pool, wired, monkeypatch, place):
    modules = {
        "_ask": change_keys,
        "order_command": change_keys,
        "mark_pending": change_keys.identity_store,
        "mark_change": change_keys.key_change_store,
        "mark_round": change_keys.key_change_store,
    }
    clock, change = Clock(), await plan_change(pool, wired, {"krn": 2})
    await die_after(
        monkeypatch, modules.get(place, change_keys.token_store), place, issue(pool, change, clock)
    )
    assert (await identity_of(pool, wired)).pending is None
    assert await issue(pool, change, clock) is ChangeState.ISSUED
    assert await one(pool, "SELECT count(*) FROM billing.token") == 2
    assert await one(pool, "SELECT count(*) FROM meter_gateway.meter_command") == 2
    assert await one(pool, "SELECT count(*) FROM billing.key_use") == 2


@pytest.mark.parametrize("place", ["mark_change", "mark_proven", "mark_held", "order_command"])
async def test_a_kill_while_proving_is_made_good(pool, wired, monkeypatch, place):
    from portal import hand_token

    modules = {"mark_proven": change_keys.identity_store, "order_command": hand_token}
    clock, change = Clock(), await plan_change(pool, wired, {"krn": 2})
    await issue(pool, change, clock)
    await sell_to(pool, wired, clock)
    await run_wire(pool, wired, clock())
    where = modules.get(place, change_keys.key_change_store)
    await die_after(monkeypatch, where, place, follow(pool, change, clock()))
    assert (await identity_of(pool, wired)).pending is not None
    assert await follow(pool, change, clock()) is ChangeState.PROVEN
    assert await run_wire(pool, wired, clock()) == ["ACCEPT"]
    assert await one(pool, "SELECT count(*) FROM meter_gateway.meter_command") == 3


async def die_after(monkeypatch, module, name, step):
    class Killed(BaseException):
        pass

    real = getattr(module, name)

    async def then_die(*args, **kwargs):
        await real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(module, name, then_die)
    with pytest.raises(Killed):
        await step
    monkeypatch.undo()


async def test_two_workers_at_once_issue_once(pool, wired):
    clock, change = Clock(), await plan_change(pool, wired, {"krn": 2})
    states = await asyncio.gather(*(issue(pool, change, clock) for _ in range(4)))
    assert set(states) == {ChangeState.ISSUED}
    assert await one(pool, "SELECT count(*) FROM billing.token") == 2


async def test_steps_are_facts(pool, wired):
    await plan_change(pool, wired, {"krn": 2})
    async with pool.connection() as conn:
        with pytest.raises(psycopg.errors.RestrictViolation):
            await conn.execute("UPDATE billing.key_change_step SET done_by = 'nobody'")
        await conn.rollback()
        assert await key_change_store.list_changes_to_issue(conn, limit=5) != []
