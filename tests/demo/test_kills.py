"""Every process is killed in turn, at random moments inside twenty purchases; nothing is lost, nothing twice."""

from __future__ import annotations

import asyncio
import random
import signal
import time

import httpx
import psycopg
import pytest

from billing.reconcile import list_imbalances
from raseed.check_town import CheckTown, Purchase, until
from raseed.check_visitor import PageUnexpected
from tests.demo.conftest import running_town

PURCHASES = 20
VICTIMS = ("worker", "headend", "gateway", "simulate", "portal", "sandbox-provider", "postgres", "broker")
SEED = 20261122
# A customer whose page does not answer tries again; so does the test, and says how often it had to.
TRIES = 120


async def buy_as_a_patient_customer(town: CheckTown, meter, amount: str) -> Purchase:
    """Buy once: the quote is repeated freely, the payment only through its own page."""
    started = None
    for _try in range(TRIES):
        try:
            if started is None:
                started = await town.start_purchase(meter, amount)
            await town.pay(*started)
        except (httpx.HTTPError, PageUnexpected, psycopg.Error, IndexError):
            if started is not None and await is_settled(town, started[0]):
                return started[0]
            await asyncio.sleep(0.5)
        else:
            return started[0]
    raise AssertionError(f"no purchase in {TRIES} tries")


async def is_settled(town: CheckTown, purchase: Purchase) -> bool:
    try:
        rows = await town.query("SELECT state FROM billing.payment WHERE id = %s", purchase.payment_id)
    except psycopg.Error:
        return False
    return bool(rows) and rows[0]["state"] == "CONFIRMED"


async def killer(town: CheckTown, dice: random.Random, stop: asyncio.Event) -> list[str]:
    """Kill one after the other, round and round, until told to stop; who is not up yet is let to come up first.

    Where a process takes long to come back, a purchase takes long too: the next death waits in proportion.
    """
    supervisor, killed, slowness = town.demo.supervisor, [], 1.0

    async def is_up(name: str, after: int | None = None) -> None:
        while not supervisor.is_ready(name) or supervisor.pid(name) == after:
            await asyncio.sleep(0.05)

    while not stop.is_set() or len(killed) < len(VICTIMS):
        name = VICTIMS[len(killed) % len(VICTIMS)]
        await is_up(name)
        await asyncio.sleep(dice.uniform(0.2, 1.5) * slowness)
        died_at, pid = time.monotonic(), supervisor.pid(name)
        supervisor.kill(name, signal.SIGKILL)
        killed.append(name)
        await is_up(name, after=pid)
        slowness = max(1.0, time.monotonic() - died_at)
    return killed


@pytest.mark.demo
async def test_twenty_purchases_survive_the_death_of_every_process(data_folder):
    dice = random.Random(SEED)
    async with running_town(data_folder) as town:
        wires = [
            ("electricity", "mqtt"),
            ("electricity", "tcp"),
            ("electricity", "rtu"),
            ("water", "mqtt"),
            ("water", "tcp"),
        ]
        meters = [town.meter(*wires[n % len(wires)], skip=n // len(wires)) for n in range(PURCHASES)]
        for meter in meters:  # signed in before the trouble begins: codes are limited per phone
            await town.subscriber(town.owner(meter))
        stop = asyncio.Event()
        killing = asyncio.create_task(killer(town, dice, stop))
        purchases = []
        for n, meter in enumerate(meters):
            await asyncio.sleep(dice.uniform(0.0, 1.5))  # spread over two rounds of deaths
            purchases.append(await buy_as_a_patient_customer(town, meter, str(2 + n % 3)))
        stop.set()
        killed = await killing
        print(f"killed {len(killed)} times: {killed}")
        for purchase in purchases:
            await wait_applied(town, purchase)
        await count_everything(town, purchases)


async def wait_applied(town: CheckTown, purchase: Purchase) -> None:
    async def applied() -> bool:
        try:
            return str((await town.progress(purchase)).outcome) in ("applied", "powered")
        except psycopg.Error:
            return False

    await until(
        applied, lambda: f"{purchase.meter.drn} over {purchase.meter.bus or 'mqtt'} is not applied", 60.0
    )


async def count_everything(town: CheckTown, purchases: list[Purchase]) -> None:
    payments = await town.query("SELECT count(*) AS n FROM billing.payment WHERE state = 'CONFIRMED'")
    tokens = await town.query("SELECT count(*) AS n FROM billing.token WHERE purpose = 'credit'")
    assert (payments[0]["n"], tokens[0]["n"]) == (PURCHASES, PURCHASES)
    taken = 0
    for meter in {purchase.meter.drn: purchase.meter for purchase in purchases}.values():
        store = await town.store(meter)
        assert len({e["tid"] for e in store["accepted"]}) == len(store["accepted"])
        taken += len(store["accepted"])
    assert taken == PURCHASES
    for purchase in purchases:
        await town.expect_applied_once(purchase)
    async with await psycopg.AsyncConnection.connect(town.demo.database_url) as conn:
        assert await list_imbalances(conn) == []
