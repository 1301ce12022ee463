"""Make a quote: what an amount buys on this customer's meter, with every step of the arithmetic."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg

from billing import customer_store, identity_store, ledger_store, quote_store, tariff_store, vend_store
from billing.arrears import arrears_of
from billing.customer import Agreement
from billing.errors import InvalidVend, NotFound
from billing.quote_store import Quote
from billing.tariff import Tariff, month_start, price_amount
from billing.vend_store import OpenVend

# Long enough to find a bank card, short enough that the month's blocks hardly move under it.
QUOTE_LIFETIME = timedelta(minutes=15)
# A payment that nobody finished within this is no reason to warn before the next purchase.
OPEN_SALE_WINDOW = timedelta(minutes=30)


async def make_quote(
    conn: psycopg.AsyncConnection, *, customer_id: int, meter_drn: str, amount_minor: int, now: datetime
) -> Quote:
    """Price `amount_minor` baisa on a meter of this customer, and store the quote and its vend.

    Raises NotFound for a meter that is not this customer's, InvalidVend for an amount outside the tariff's
    limits (`amount_below_minimum`, `amount_above_maximum`, `amount_buys_nothing`) or a meter that takes no
    tokens. Ask `list_open_vends` before, and show what it gives.
    """
    agreement = await customer_store.find_agreement(conn, customer_id=customer_id, meter_drn=meter_drn)
    if agreement is None:
        raise NotFound("meter_not_found", "no such meter")
    identity = await identity_store.find_identity(conn, agreement.meter_id)
    if identity is None:
        raise InvalidVend("meter_cannot_take_tokens", "this meter has no STS identity")
    identity_store.check_can_vend(identity, now)
    tariff = await tariff_store.get_tariff_at(conn, agreement.tariff_code, now)
    check_limits(tariff, amount_minor)
    return await _store_quote(conn, agreement, tariff, amount_minor, now)


async def _store_quote(
    conn: psycopg.AsyncConnection, agreement: Agreement, tariff: Tariff, amount_minor: int, now: datetime
) -> Quote:
    arrears = arrears_of(
        amount_minor,
        await get_debt_left_minor(conn, agreement.customer_id),
        cap_percent=tariff.arrears_cap_percent,
    )
    price = price_amount(
        tariff,
        month_to_date_tenths=await get_month_to_date_tenths(conn, agreement.meter_id, now),
        amount_minor=amount_minor - arrears,
    )
    quote_id = await quote_store.insert_quote(
        conn,
        customer_agreement_id=agreement.customer_agreement_id,
        meter_id=agreement.meter_id,
        tariff_id=tariff.id,
        amount_minor=amount_minor,
        arrears_minor=arrears,
        vat_minor=price.vat_minor,
        energy_minor=price.energy_minor,
        change_minor=amount_minor - arrears - price.total_minor,
        units_tenths=price.units_tenths,
        steps=price.steps,
        now=now,
        expires_at=now + QUOTE_LIFETIME,
    )
    await vend_store.insert_vend(conn, quote_id=quote_id, meter_id=agreement.meter_id, now=now)
    return await quote_store.get_quote(conn, quote_id)


def check_limits(tariff: Tariff, amount_minor: int) -> None:
    """Refuse an amount outside the tariff's limits. Raises InvalidVend."""
    if amount_minor < tariff.minimum_minor:
        raise InvalidVend(
            "amount_below_minimum",
            f"the least is {tariff.minimum_minor} baisa",
            minimum_minor=tariff.minimum_minor,
        )
    if amount_minor > tariff.maximum_minor:
        raise InvalidVend(
            "amount_above_maximum",
            f"the most is {tariff.maximum_minor} baisa",
            maximum_minor=tariff.maximum_minor,
        )


async def get_debt_left_minor(conn: psycopg.AsyncConnection, customer_id: int) -> int:
    """Debt in baisa that no running purchase has promised to take already."""
    debt = await ledger_store.get_debt_minor(conn, customer_id)
    return max(0, debt - await quote_store.get_promised_arrears_minor(conn, customer_id))


async def get_month_to_date_tenths(conn: psycopg.AsyncConnection, meter_id: int, now: datetime) -> int:
    """Tenths of a unit that this meter was sold in the local month of `now`, up to `now`."""
    return await quote_store.get_month_to_date_tenths(
        conn, meter_id, since=month_start(now), until=now + timedelta(microseconds=1)
    )


async def list_open_vends(conn: psycopg.AsyncConnection, meter_id: int, now: datetime) -> list[OpenVend]:
    """Sales of this meter that have not ended: buying again now may be buying twice (field rule 4.6.7)."""
    return await vend_store.list_open_of_meter(conn, meter_id, since=now - OPEN_SALE_WINDOW)
