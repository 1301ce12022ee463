"""`raseed money`: what is held for customers, and what a person of the office may do with it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from billing.states import VendState
from raseed.keys_tool import Conn, connected
from raseed.settings import Settings
from raseed.staff_word import ask_staff

MAX_REASON = 200
_ORDERS = {
    "refund": "return the money of a refused or reversed sale, or money in suspense",
    "reverse": "take back a sale whose token is proven unused; its money can then be refunded",
    "retry": "ask the vault again for a sale that it had no key for, under the same id and TID",
}


@dataclass(frozen=True, slots=True)
class _Word:
    """Who gives the order, why and when."""

    by: str
    reason: str
    now: datetime


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `money` and what it does to the command line."""
    money = commands.add_parser("money", help="money without a token: list it, return it (DATABASE_URL)")
    what = money.add_subparsers(dest="what", required=True, metavar="WHAT")
    what.add_parser("list", help="refused and reversed sales, and money in suspense").set_defaults(run=_list)
    for name, text in _ORDERS.items():
        command = what.add_parser(
            name, help=text, description=f"{text}; without --yes it only says what it would do"
        )
        command.add_argument("vend_id", type=UUID, metavar="VEND_ID")
        command.add_argument("--as", dest="person", required=True, metavar="NAME", help="supervisor or admin")
        command.add_argument("--reason", required=True)
        command.add_argument("--yes", action="store_true", help="do it; the password is asked for")
        command.set_defaults(run=_order)


def _list(_options: argparse.Namespace, settings: Settings) -> int:
    from billing import held_money_store
    from portal.formats import money_text

    async def step(conn: Conn) -> int:
        held = await held_money_store.list_held(conn)
        for one in held:
            print(
                f"{one.vend_id}  {one.state:<8}  {money_text(one.amount_minor, 'en')}  meter {one.meter_drn}"
                f"  receipt {one.receipt_number}  since {one.since.astimezone(UTC):%Y-%m-%d %H:%M}Z  {one.detail}"
            )
        print(f"{len(held)} sums held, {money_text(sum(one.amount_minor for one in held), 'en')} in all")
        return 0

    return connected(settings, step)


def _order(options: argparse.Namespace, settings: Settings) -> int:
    from billing import vend_store
    from billing.engineering import APPROVERS

    reason = options.reason.strip()
    if not 0 < len(reason) <= MAX_REASON:
        raise ValueError(f"say why, in up to {MAX_REASON} characters")
    act = {"refund": _refund, "reverse": _reverse, "retry": _retry}[options.what]

    async def step(conn: Conn) -> int:
        by = options.person
        if options.yes:
            person = await ask_staff(conn, options.person)
            if person.role not in APPROVERS:
                print(f"refused: the role {person.role} may not decide this", file=sys.stderr)
                return 1
            by = person.name
        before = (await vend_store.lock_vend(conn, options.vend_id)).state
        after, said = await act(conn, options.vend_id, _Word(by, reason, datetime.now(UTC)))
        if after is before:
            print(f"the sale is {after} already; nothing was changed")
        elif options.yes:
            print(f"{before} → {after}: {said}")
        else:
            # Done and undone: what it says is what it would do, refusals included.
            await conn.rollback()
            print(f"would make it {before} → {after}: {said}\nnothing was changed; say --yes to do it")
        return 0

    return connected(settings, step)


async def _refund(conn: Conn, vend_id: UUID, word: _Word) -> tuple[VendState, str]:
    from billing import customer_store, quote_store, vend_store
    from billing.refund import refund_vend
    from portal import message_store, sale_text
    from portal.formats import money_text

    state = await refund_vend(conn, vend_id, refunded_by=word.by, reason=word.reason, now=word.now)
    vend = await vend_store.get_vend(conn, vend_id)
    quote = await quote_store.get_quote(conn, vend.quote_id)
    customer = await customer_store.get_customer(conn, quote.customer_id)
    await message_store.insert_message(
        conn,
        idempotency_key=f"refund:{vend_id}",
        customer_id=customer.id,
        phone=customer.phone,
        kind="payment",
        language=customer.language,
        body=sale_text.refund_body(
            customer.language, amount_minor=quote.amount_minor, receipt_number=vend.receipt_number
        ),
        reference=str(vend_id),
        now=word.now,
    )
    amount = money_text(quote.amount_minor, "en")
    # The books say what is owed to whom; no provider is ordered to pay by this.
    return (
        state,
        f"{amount} to return by payment {vend.payment_id}; order it at the provider, the customer is told",
    )


async def _reverse(conn: Conn, vend_id: UUID, word: _Word) -> tuple[VendState, str]:
    from billing.errors import InvalidVend
    from billing.refund import reverse_vend
    from portal import sale_store
    from portal.sale import Stage

    sale = await sale_store.get_sale(conn, vend_id=vend_id, customer_id=None)
    if sale.progress.at(Stage.APPLIED) is not None:
        raise InvalidVend("token_used", "the meter has this token's units: there is nothing to take back")
    state = await reverse_vend(conn, vend_id, reversed_by=word.by, reason=word.reason, now=word.now)
    return state, f"the money of receipt {sale.row.receipt_number} is the customer's again; refund it next"


async def _retry(conn: Conn, vend_id: UUID, word: _Word) -> tuple[VendState, str]:
    from billing.refund import retry_vend

    state = await retry_vend(conn, vend_id, retried_by=word.by, reason=word.reason, now=word.now)
    return state, "the worker asks the vault again within a minute"
