"""Buying units: amount, offer with its arithmetic, payment at the provider, the way to the meter, the receipt."""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import psycopg
from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from billing import customer_store, payment_store, quote_store, tariff_store, vend
from billing.customer import Agreement
from billing.errors import InvalidQuantity, InvalidVend
from billing.payment_store import Payment
from billing.quantity import parse_amount
from billing.take_payment import redirect_url
from billing.tariff import Tariff
from portal import my_sale_store, my_store, rate_limit, sale_store
from portal.access import NotFound, Viewer, require
from portal.errors import field_error
from portal.pages.account import spend
from portal.pages.render import language_code, language_of, page, redirect
from portal.receipt_pdf import Receipt, ReceiptStep, receipt_pdf
from portal.runtime import runtime_of
from portal.sale import Sale
from portal.sale_words import entry_tone, entry_words
from portal.sell import start_payment

router = APIRouter()
Subscriber = Annotated[Viewer, Depends(require("my.view"))]
Buyer = Annotated[Viewer, Depends(require("my.buy"))]

SUGGESTIONS_MINOR = (3_000, 5_000, 10_000, 20_000)  # what people hand over a counter
SILENT_AFTER_S = 120  # a card takes a minute or two: after that the provider's silence is worth a word


async def _agreement(conn: psycopg.AsyncConnection, viewer: Viewer, drn: str) -> Agreement:
    found = await customer_store.find_agreement(conn, customer_id=viewer.subscriber_id, meter_drn=drn)
    if found is None:
        raise NotFound
    return found


def _suggestions(tariff: Tariff) -> list[int]:
    return [minor for minor in SUGGESTIONS_MINOR if tariff.minimum_minor <= minor <= tariff.maximum_minor]


async def _buy_page(
    request: Request, viewer: Viewer, drn: str, *, amount: str, error: str, status: int = 200
) -> Response:
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        meter = await my_store.get_meter(conn, viewer.subscriber_id, drn)
        agreement = await _agreement(conn, viewer, drn)
        tariff = await tariff_store.get_tariff_at(conn, agreement.tariff_code, now)
        running = await vend.list_open_vends(conn, meter.meter_id, now)
        debt_minor = await vend.get_debt_left_minor(conn, viewer.subscriber_id)
    return page(
        request,
        "my/buy.html",
        status=status,
        meter=meter,
        tariff=tariff,
        running=running,
        debt_minor=debt_minor,
        suggestions=_suggestions(tariff),
        amount=amount,
        error=error,
    )


@router.get("/my/meters/{drn}/buy")
async def buy_form(request: Request, drn: str, viewer: Buyer) -> Response:
    """Ask for the amount."""
    return await _buy_page(request, viewer, drn, amount="", error="")


@router.post("/my/meters/{drn}/buy")
async def make_offer(
    request: Request,
    drn: str,
    viewer: Buyer,
    amount: Annotated[str, Form(max_length=60)] = "",
) -> Response:
    """Price the amount and show the offer, or say beside the field what is wrong with it."""
    now = datetime.now(UTC)
    await spend(request, now, (rate_limit.BUY_PER_LOGIN, str(viewer.login_id)))
    try:
        amount_minor = parse_amount(amount)
        async with runtime_of(request).pool.connection() as conn:
            quote = await vend.make_quote(
                conn, customer_id=viewer.subscriber_id, meter_drn=drn, amount_minor=amount_minor, now=now
            )
    except (InvalidQuantity, InvalidVend) as problem:
        error = field_error(problem, language_of(request))
        return await _buy_page(request, viewer, drn, amount=amount, error=error, status=422)
    return redirect(request, f"/my/quotes/{quote.id}")


@router.get("/my/quotes/{quote_id}")
async def offer_page(request: Request, quote_id: UUID, viewer: Buyer) -> Response:
    """Show what will be paid for what, before anything is paid."""
    return await _offer_page(request, quote_id, viewer, must_confirm=False)


async def _offer_page(request: Request, quote_id: UUID, viewer: Viewer, *, must_confirm: bool) -> Response:
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        quote = await quote_store.get_quote_of_customer(conn, quote_id, customer_id=viewer.subscriber_id)
        sale = await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=viewer.subscriber_id)
        meter = await my_store.get_meter(conn, viewer.subscriber_id, sale.row.drn)
        tariff = await tariff_store.get_tariff(conn, quote.tariff_id)
        running = await vend.list_open_vends(conn, quote.meter_id, now)
    if sale.row.payment_id is not None:
        return redirect(request, f"/my/payments/{sale.row.payment_id}")
    return page(
        request,
        "my/quote.html",
        status=422 if must_confirm else 200,
        own_path=f"/my/quotes/{quote_id}",
        quote=quote,
        meter=meter,
        tariff=tariff,
        running=[sale for sale in running if sale.vend_id != quote.vend_id],
        has_expired=now >= quote.expires_at,
        must_confirm=must_confirm,
        idempotency_key=secrets.token_urlsafe(16),
    )


@router.post("/my/quotes/{quote_id}/pay")
async def pay(
    request: Request,
    quote_id: UUID,
    viewer: Buyer,
    idempotency_key: Annotated[str, Form(min_length=8, max_length=100)],
    again: Annotated[str, Form(max_length=3)] = "",
) -> Response:
    """Start the payment and go to the provider; a repeat goes to the same payment."""
    now = datetime.now(UTC)
    runtime = runtime_of(request)
    async with runtime.pool.connection() as conn:
        quote = await quote_store.get_quote_of_customer(conn, quote_id, customer_id=viewer.subscriber_id)
        running = await vend.list_open_vends(conn, quote.meter_id, now)
    if any(sale.vend_id != quote.vend_id for sale in running) and again != "yes":
        return await _offer_page(request, quote_id, viewer, must_confirm=True)
    try:
        async with runtime.pool.connection() as conn:
            payment = await start_payment(
                conn,
                quote_id=quote_id,
                customer_id=viewer.subscriber_id,
                idempotency_key=idempotency_key,
                language=language_code(request),
                now=now,
            )
            sale = await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=viewer.subscriber_id)
    except InvalidVend as problem:
        text = field_error(problem, language_of(request))
        async with runtime.pool.connection() as conn:
            sale = await sale_store.get_sale(conn, vend_id=quote.vend_id, customer_id=viewer.subscriber_id)
        return redirect(request, f"/my/meters/{sale.row.drn}/buy", flash=("warn", text))
    return _to_provider(request, payment, now)


def _to_provider(request: Request, payment: Payment, now: datetime) -> Response:
    """Go to the provider's page, or to the payment's own when there is nothing left to pay."""
    runtime = runtime_of(request)
    if payment.state not in {"CREATED", "PENDING"}:
        return redirect(request, f"/my/payments/{payment.id}")
    target = redirect_url(
        payment,
        provider_url=runtime.provider_url,
        provider_secret=runtime.provider_secret,
        return_url=f"{runtime.public_url}/my/payments/{payment.id}",
        now=now,
    )
    return RedirectResponse(target, status_code=303)


@router.post("/my/payments/{payment_id}/resume")
async def resume(request: Request, payment_id: UUID, viewer: Buyer) -> Response:
    """Go back to the provider for a payment that was left in the middle: the same payment, never a second."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        await sale_store.get_sale_of_payment(conn, payment_id=payment_id, customer_id=viewer.subscriber_id)
        payment = await payment_store.get_payment(conn, payment_id)
    return _to_provider(request, payment, now)


def _is_silent(sale: Sale, now: datetime) -> bool:
    began = sale.row.payment_created_at
    return began is not None and (now - began).total_seconds() > SILENT_AFTER_S


def _is_moving(sale: Sale) -> bool:
    """Say whether looking again soon may show more."""
    return not sale.progress.is_over and sale.progress.outcome not in {"refused", "rejected", "key_refused"}


@router.get("/my/payments/{payment_id}")
async def payment_page(request: Request, payment_id: UUID, viewer: Subscriber) -> Response:
    """Follow a payment until the meter has its units."""
    now = datetime.now(UTC)
    async with runtime_of(request).pool.connection() as conn:
        sale = await sale_store.get_sale_of_payment(
            conn, payment_id=payment_id, customer_id=viewer.subscriber_id
        )
    return page(
        request,
        "my/payment.html",
        block="progress",
        sale=sale,
        is_silent=_is_silent(sale, now),
        is_moving=_is_moving(sale),
    )


@router.get("/my/receipts/{vend_id}.pdf")
async def receipt_file(
    request: Request,
    vend_id: UUID,
    viewer: Subscriber,
    lang: Annotated[str, Query(pattern="^(ar|en)$")] = "ar",
) -> Response:
    """Give the receipt as a PDF file."""
    await spend(request, datetime.now(UTC), (rate_limit.TOKEN_VIEW_PER_LOGIN, str(viewer.login_id)))
    async with runtime_of(request).pool.connection() as conn:
        sale = await sale_store.get_sale(conn, vend_id=vend_id, customer_id=viewer.subscriber_id)
        receipt = await _receipt(conn, viewer, sale)
    # A tenth of a second of drawing: beside the loop, so that nobody else's page waits for it.
    drawn = await asyncio.to_thread(receipt_pdf, receipt, lang)
    return Response(
        drawn,
        media_type="application/pdf",
        headers={
            "Content-Disposition": f'attachment; filename="raseed-{sale.row.receipt_number}-{lang}.pdf"',
            "Cache-Control": "no-store",
        },
    )


async def _receipt(conn: psycopg.AsyncConnection, viewer: Viewer, sale: Sale) -> Receipt:
    row = sale.row
    if row.digits is None or row.issued_at is None or row.paid_at is None:
        raise NotFound
    meter = await my_store.get_meter(conn, viewer.subscriber_id, row.drn)
    customer = await customer_store.get_customer(conn, row.customer_id)
    quote = await quote_store.get_quote(conn, row.quote_id)
    tariff = await tariff_store.get_tariff(conn, quote.tariff_id)
    return Receipt(
        receipt_number=row.receipt_number,
        drn=row.drn,
        commodity="water" if row.commodity == "water" else "electricity",
        customer_name_en=customer.name_en,
        customer_name_ar=customer.name_ar,
        address_en=meter.address_en,
        address_ar=meter.address_ar,
        tariff_name_en=tariff.name_en,
        tariff_name_ar=tariff.name_ar,
        token_digits=row.digits,
        units_tenths=row.units_tenths,
        amount_minor=row.amount_minor,
        arrears_minor=row.arrears_minor,
        vat_minor=row.vat_minor,
        vat_basis_points=tariff.vat_basis_points,
        energy_minor=row.energy_minor,
        change_minor=row.change_minor,
        steps=tuple(ReceiptStep(s.units_tenths, s.rate_micro, s.amount_minor) for s in row.steps),
        payment_reference=str(row.payment_id),
        paid_at=row.paid_at,
        issued_at=row.issued_at,
        first_tokens=tuple(row.first_tokens),
    )


@router.get("/my/receipts/{vend_id}")
async def receipt_page(request: Request, vend_id: UUID, viewer: Subscriber) -> Response:
    """Show the token, what was paid for, and how it reached the meter."""
    await spend(request, datetime.now(UTC), (rate_limit.TOKEN_VIEW_PER_LOGIN, str(viewer.login_id)))
    async with runtime_of(request).pool.connection() as conn:
        sale = await sale_store.get_sale(conn, vend_id=vend_id, customer_id=viewer.subscriber_id)
        if sale.row.digits is None:
            if sale.row.payment_id is None:
                raise NotFound
            return redirect(request, f"/my/payments/{sale.row.payment_id}")
        quote = await quote_store.get_quote(conn, sale.row.quote_id)
        tariff = await tariff_store.get_tariff(conn, quote.tariff_id)
        meter = await my_store.get_meter(conn, viewer.subscriber_id, sale.row.drn)
        entries = await my_sale_store.list_entries(conn, vend_id)
    return page(
        request,
        "my/receipt.html",
        sale=sale,
        row=sale.row,
        tariff=tariff,
        meter=meter,
        entries=entries,
        entry_words=entry_words,
        entry_tone=entry_tone,
        is_moving=_is_moving(sale),
    )
