"""What `raseed demo --check` and the kill tests do in a running demo: sign in, buy, look into meters and books."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, LiteralString
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import httpx
import psycopg
from psycopg.rows import dict_row

from firmware_sim.town import Town, TownCustomer, TownMeter, build_town
from raseed.check_visitor import Visitor
from raseed.demo import Demo

POLL_S = 0.05
WAIT_S = 20.0  # the slowest wire, a 9600 baud line with a silent meter on it, answers well within this
CONTROL = {"X-Raseed-Control": "1"}


class CheckFailed(Exception):
    """The platform did not do what the story expects; the text says what was seen instead."""


@dataclass(frozen=True, slots=True)
class Purchase:
    """One sale as the check follows it."""

    meter: TownMeter
    payment_id: UUID
    amount_minor: int


class CheckTown:
    """A running demo seen from outside: pages, database, and the meters' own memory."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.town: Town = build_town()
        self._visitors: dict[str, Visitor] = {}
        self._control = httpx.AsyncClient(
            base_url=demo.control_url, timeout=5.0, trust_env=False, headers=CONTROL
        )

    async def close(self) -> None:
        """Close every connection of the check."""
        for visitor in self._visitors.values():
            await visitor.close()
        await self._control.aclose()

    # -- people and meters ----------------------------------------------------------------------------------

    def meter(self, commodity: str, wire: str, skip: int = 0) -> TownMeter:
        """An installed meter on a wire: mqtt, tcp, rtu or keypad."""
        found = [
            m
            for m in self.town.installed
            if m.commodity == commodity and (m.bus or m.link).startswith(wire) and self.owner(m) is not None
        ]
        return found[skip]

    def owner(self, meter: TownMeter) -> TownCustomer | None:
        """The customer of the meter's usage point."""
        return next((c for c in self.town.customers if meter.usage_point_code in c.usage_point_codes), None)

    async def subscriber(self, customer: TownCustomer) -> Visitor:
        """Sign a customer in by phone and one-time code, once."""
        if customer.phone in self._visitors:
            return self._visitors[customer.phone]
        visitor = Visitor(self.demo.url)
        page = await visitor.get("/sign-in?lang=en")
        page = await visitor.submit(page, "/sign-in", phone=customer.phone)
        code = await self.one_time_code(customer.phone)
        await visitor.submit(page, "/sign-in/code", code=code)
        self._visitors[customer.phone] = visitor
        return visitor

    async def one_time_code(self, phone: str) -> str:
        """The newest code sent to a phone, as its owner would read it."""
        rows = await self.query(
            "SELECT body FROM portal.message WHERE phone = %s AND kind = 'one_time_code' ORDER BY id DESC LIMIT 1",
            phone,
        )
        found = re.search(r"\b\d{6}\b", rows[0]["body"]) if rows else None
        if not found:
            raise CheckFailed(f"no one-time code was sent to {phone}")
        return found.group()

    async def staff(self, name: str) -> Visitor:
        """Sign a member of staff in with name and password."""
        if name not in self._visitors:
            from raseed.demo_folder import keep_staff_passwords

            visitor = Visitor(self.demo.url)
            page = await visitor.get("/sign-in/staff?lang=en")
            password = keep_staff_passwords(self.demo.folder)[name]
            await visitor.submit(page, "/sign-in/staff", username=name, password=password)
            self._visitors[name] = visitor
        return self._visitors[name]

    # -- buying ---------------------------------------------------------------------------------------------

    async def start_purchase(self, meter: TownMeter, amount: str) -> tuple[Purchase, str]:
        """Go from the amount to the provider's page; give the purchase and that page's address."""
        customer = self.owner(meter)
        if customer is None:
            raise CheckFailed(f"nobody owns meter {meter.drn}")
        visitor = await self.subscriber(customer)
        page = await visitor.get(f"/my/meters/{meter.drn}/buy")
        page = await visitor.submit(page, f"/my/meters/{meter.drn}/buy", amount=amount)
        if "/my/quotes/" not in page.url:
            raise CheckFailed(f"no quote for {amount} OMR: {page.text[:200]}")
        asks_again = any(found.get("name") == "again" for found in page.attributes)
        page = await visitor.submit(page, "/pay", button=("again", "yes") if asks_again else None)
        address = page.url
        payment_id = UUID(_first(parse_qs(urlsplit(address).query), "payment", "payment_id", "id"))
        amount_minor = (
            await self.query("SELECT amount_minor FROM billing.payment WHERE id = %s", payment_id)
        )[0]
        return Purchase(meter, payment_id, int(amount_minor["amount_minor"])), address

    async def pay(self, purchase: Purchase, address: str, behaviour: str = "pay") -> None:
        """Press a button of the provider's hosted page."""
        customer = self.owner(purchase.meter)
        visitor = await self.subscriber(customer) if customer else Visitor(self.demo.url)
        page = await visitor.get(address)
        await visitor.submit(page, "/pay", button=("behaviour", behaviour))

    async def buy(self, meter: TownMeter, amount: str = "5", behaviour: str = "pay") -> Purchase:
        """Buy and pay."""
        purchase, address = await self.start_purchase(meter, amount)
        await self.pay(purchase, address, behaviour)
        return purchase

    # -- looking --------------------------------------------------------------------------------------------

    async def query(self, statement: LiteralString, *values: Any) -> list[dict[str, Any]]:
        """Rows of the platform's own database; a connection of its own each time, as the server may be killed."""
        async with await psycopg.AsyncConnection.connect(
            self.demo.database_url, autocommit=True, row_factory=dict_row
        ) as conn:
            cursor = await conn.execute(statement, values)
            return await cursor.fetchall()

    async def progress(self, purchase: Purchase) -> Any:
        """The sale as the subscriber's page derives it."""
        from portal.sale_store import get_sale_of_payment

        async with await psycopg.AsyncConnection.connect(self.demo.database_url) as conn:
            sale = await get_sale_of_payment(conn, payment_id=purchase.payment_id, customer_id=None)
            return sale.progress

    async def until_outcome(self, purchase: Purchase, *outcomes: str, limit_s: float = WAIT_S) -> Any:
        """Wait until the sale has one of the outcomes; give its progress. Raises CheckFailed."""
        seen: Any = None

        async def reached() -> bool:
            nonlocal seen
            seen = await self.progress(purchase)
            return str(seen.outcome) in outcomes

        await until(reached, lambda: f"the sale is «{seen.outcome}», not {' or '.join(outcomes)}", limit_s)
        return seen

    async def store(self, meter: TownMeter) -> dict[str, Any]:
        """The meter's own memory: credit, TID store, accepted tokens, commands run."""
        answer = await self._control.get(f"/meters/{meter.drn}/store")
        answer.raise_for_status()
        return dict(answer.json())

    async def control(self, path: str, **body: Any) -> dict[str, Any]:
        """Tell the simulator something through its control port."""
        answer = await self._control.post(path, json=body)
        answer.raise_for_status()
        return dict(answer.json() or {})

    async def type_token(self, meter: TownMeter, digits: str) -> str:
        """Type a token at the meter's own keypad; give the meter's answer."""
        return str((await self.control(f"/meters/{meter.drn}/keypad", digits=digits))["result"]).lower()

    async def token_of(self, purchase: Purchase) -> dict[str, Any]:
        """The one token of a purchase. Raises CheckFailed when there is none or more than one."""
        rows = await self.query(
            "SELECT t.digits, t.tid, t.units_tenths FROM billing.token t JOIN billing.vend v ON v.id = t.vend_id "
            "WHERE v.payment_id = %s",
            purchase.payment_id,
        )
        if len(rows) != 1:
            raise CheckFailed(f"{len(rows)} tokens for one payment")
        return rows[0]

    async def times_accepted(self, meter: TownMeter, tid: int) -> int:
        """How often the meter itself took the token with this TID."""
        return [entry["tid"] for entry in (await self.store(meter))["accepted"]].count(tid)

    async def expect_applied_once(self, purchase: Purchase) -> dict[str, Any]:
        """One token, accepted by the meter exactly once, with the amount that was sold. Raises CheckFailed."""
        token = await self.token_of(purchase)
        accepted = [e for e in (await self.store(purchase.meter))["accepted"] if e["tid"] == token["tid"]]
        if len(accepted) != 1:
            raise CheckFailed(f"the meter took the token {len(accepted)} times")
        if accepted[0]["amount_tenths"] != token["units_tenths"]:
            raise CheckFailed(
                f"sold {token['units_tenths']} tenths, the meter took {accepted[0]['amount_tenths']}"
            )
        return token


def _first(query: dict[str, list[str]], *names: str) -> str:
    for name in names:
        if name in query:
            return query[name][0]
    raise CheckFailed(f"the provider's address holds no payment: {sorted(query)}")


async def until(
    condition: Callable[[], Awaitable[bool]], failure: Callable[[], str], limit_s: float = WAIT_S
) -> float:
    """Wait until the condition holds and give the seconds it took. Raises CheckFailed with `failure()`."""
    began = time.monotonic()
    while not await condition():
        if time.monotonic() - began > limit_s:
            raise CheckFailed(f"after {limit_s:g} s {failure()}")
        await asyncio.sleep(POLL_S)
    return time.monotonic() - began
