"""The receipt of a sale as one PDF page, in Arabic or in English."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from fpdf import FPDF

from portal.formats import NO_BREAK_SPACE, decimal_text, money_number, when_text
from portal.i18n import CODES, Language, load_languages
from token_engine.token_text import group_digits

FONT_DIR = Path(__file__).parent / "static" / "vendor"
FONT = "naskh"

Gettext = Callable[..., str]

PAGE_WIDTH_MM = 148.0  # A5: what a shop's printer and a phone's screen both show whole
PAGE_HEIGHT_MM = 210.0
STEPS_ON_A5 = 4  # a tariff with more steps gets a longer page
MARGIN_MM = 12.0
WIDTH_MM = PAGE_WIDTH_MM - 2 * MARGIN_MM
ROW_MM = 6.2
FIRST_TOKEN_MM = 8.0

INK = (18, 38, 43)
QUIET = (88, 104, 108)
TEAL = (8, 92, 99)
PAPER = (238, 245, 244)
RULE = (205, 216, 216)


@dataclass(frozen=True, slots=True)
class Seller:
    """Who sold, as the tax invoice has to name it."""

    name_en: str
    name_ar: str
    vat_number: str


DEMO_SELLER = Seller("Raseed Demo Utility", "مرفق رصيد التجريبي", "OM1100000000")


@dataclass(frozen=True, slots=True)
class ReceiptStep:
    """One step of the tariff that the sale used: tenths of a unit, micro-OMR a unit, baisa."""

    units_tenths: int
    rate_micro: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """All that a receipt says. Money in baisa, units in tenths of kWh or m3, times aware UTC.

    `amount_minor` is the sum of arrears, VAT, energy and change; `token_digits` are the 20 bare digits.
    """

    receipt_number: int
    drn: str
    commodity: Literal["electricity", "water"]
    customer_name_en: str
    customer_name_ar: str
    address_en: str
    address_ar: str
    tariff_name_en: str
    tariff_name_ar: str
    token_digits: str
    units_tenths: int
    amount_minor: int
    arrears_minor: int
    vat_minor: int
    vat_basis_points: int
    energy_minor: int
    change_minor: int
    steps: tuple[ReceiptStep, ...]
    payment_reference: str
    paid_at: datetime
    issued_at: datetime
    seller: Seller = DEMO_SELLER
    first_tokens: tuple[str, ...] = ()  # key-change tokens, to be entered before in this order


def rate_text(rate_micro: int) -> str:
    """Micro-rials a unit as exact baisa: 22680 is 22.68 and 14000 is 14."""
    whole, part = divmod(rate_micro, 1000)
    return f"{whole}.{part:03d}".rstrip("0").rstrip(".")


@cache
def _language(code: str) -> Language:
    return load_languages()[code]


def receipt_pdf(receipt: Receipt, language: str) -> bytes:
    """Return the PDF of one receipt. The same receipt gives the same bytes.

    Raises ValueError for a language other than `ar` and `en`, FileNotFoundError when the fonts were not
    installed.
    """
    if language not in CODES:
        raise ValueError(f"receipts are set in ar or en, not {language!r}")
    _ = _language(language)._
    more = max(0, len(receipt.steps) - STEPS_ON_A5) * ROW_MM
    if receipt.first_tokens:
        more += (len(receipt.first_tokens) + 1) * FIRST_TOKEN_MM
    pen = _Pen(rtl=language == "ar", height=PAGE_HEIGHT_MM + more)
    pen.pdf.set_creation_date(receipt.issued_at)
    pen.pdf.set_title(f"{_('Receipt number')} {receipt.receipt_number}")
    pen.pdf.set_author(pen.own(receipt.seller.name_en, receipt.seller.name_ar))
    pen.pdf.set_lang(language)
    _draw_head(pen, receipt, _)
    _draw_first_tokens(pen, receipt, _)
    _draw_token(pen, receipt, _)
    _draw_sale(pen, receipt, _)
    _draw_money(pen, receipt, _)
    _draw_foot(pen, _)
    return bytes(pen.pdf.output())


class _Pen:
    """Sets text on one page, counting from the side on which the language begins."""

    def __init__(self, *, rtl: bool, height: float) -> None:
        self.rtl = rtl
        self.height = height
        self.y = MARGIN_MM
        self.pdf = FPDF(orientation="portrait", unit="mm", format=(PAGE_WIDTH_MM, height))
        self.pdf.set_margin(0)
        self.pdf.c_margin = 0
        self.pdf.set_auto_page_break(False)
        self.pdf.add_font(FONT, "", FONT_DIR / "NotoNaskhArabic_400Regular.ttf")
        self.pdf.add_font(FONT, "B", FONT_DIR / "NotoNaskhArabic_700Bold.ttf")
        self.pdf.add_page()

    def own(self, english: str, arabic: str) -> str:
        """The one of two names that belongs to this page's language."""
        return arabic if self.rtl else english

    def put(
        self,
        text: str,
        *,
        start: float = 0,
        width: float = WIDTH_MM,
        size: float = 10,
        bold: bool = False,
        ink: tuple[int, int, int] = INK,
        align: Literal["start", "end", "centre"] = "start",
        figures: bool = False,
    ) -> None:
        """Set one line at the pen's height; `figures` are digits, which read from the left everywhere."""
        rtl = self.rtl and not figures
        if rtl:
            self.pdf.set_text_shaping(True, direction="rtl", script="arab", language="ara")
        else:
            self.pdf.set_text_shaping(True, direction="ltr", script="latn", language="eng")
        self.pdf.set_font(FONT, "B" if bold else "", size)
        self.pdf.set_text_color(*ink)
        x = PAGE_WIDTH_MM - MARGIN_MM - start - width if self.rtl else MARGIN_MM + start
        side = "C" if align == "centre" else "R" if (align == "start") == self.rtl else "L"
        self.pdf.set_xy(x, self.y)
        self.pdf.cell(width, ROW_MM, text, align=side)

    def row(
        self, label: str, value: str, *, bold: bool = False, figures: bool = True, size: float = 10
    ) -> None:
        """A label at the start side, its value at the end side, and down one line."""
        self.put(label, width=WIDTH_MM * 0.5, bold=bold, ink=INK if bold else QUIET)
        self.put(
            value,
            start=WIDTH_MM * 0.3,
            width=WIDTH_MM * 0.7,
            size=size,
            bold=bold,
            align="end",
            figures=figures,
        )
        self.y += ROW_MM

    def rule(self) -> None:
        """A hairline over the whole width."""
        self.y += 1.5
        self.pdf.set_draw_color(*RULE)
        self.pdf.set_line_width(0.2)
        self.pdf.line(MARGIN_MM, self.y, PAGE_WIDTH_MM - MARGIN_MM, self.y)
        self.y += 1.5


def _draw_head(pen: _Pen, receipt: Receipt, _: Gettext) -> None:
    pen.put(pen.own(receipt.seller.name_en, receipt.seller.name_ar), size=15, bold=True, ink=TEAL)
    pen.put(_("Tax invoice and receipt"), size=10, align="end", ink=QUIET)
    pen.y += 8
    pen.put(_("VAT number"), width=WIDTH_MM * 0.5, size=9, ink=QUIET)
    pen.put(
        receipt.seller.vat_number,
        start=WIDTH_MM * 0.5,
        width=WIDTH_MM * 0.5,
        size=9,
        align="end",
        figures=True,
    )
    pen.y += ROW_MM
    pen.rule()


def _draw_first_tokens(pen: _Pen, receipt: Receipt, _: Gettext) -> None:
    if not receipt.first_tokens:
        return
    pen.put(
        _("Your meter gets a new key: enter these tokens first, in this order."), align="centre", bold=True
    )
    pen.y += FIRST_TOKEN_MM
    for digits in receipt.first_tokens:
        pen.put(group_digits(digits, 2 * NO_BREAK_SPACE), align="centre", size=14, ink=TEAL, figures=True)
        pen.y += FIRST_TOKEN_MM


def _draw_token(pen: _Pen, receipt: Receipt, _: Gettext) -> None:
    pen.pdf.set_fill_color(*PAPER)
    pen.pdf.rect(MARGIN_MM, pen.y + 1, WIDTH_MM, 31, style="F", round_corners=True, corner_radius=2.5)
    pen.y += 3
    pen.put(_("Token"), align="centre", size=10, ink=QUIET)
    pen.y += 8.5
    pen.put(
        group_digits(receipt.token_digits, 2 * NO_BREAK_SPACE),
        align="centre",
        size=23,
        bold=True,
        ink=TEAL,
        figures=True,
    )
    pen.y += 9.5
    unit = _("kWh") if receipt.commodity == "electricity" else _("cubic metres")
    pen.put(
        f"{decimal_text(receipt.units_tenths, 10, 1)}{NO_BREAK_SPACE}{unit}",
        align="centre",
        size=12,
        bold=True,
    )
    pen.y += 13


def _draw_sale(pen: _Pen, receipt: Receipt, _: Gettext) -> None:
    code = pen.own("en", "ar")
    pen.row(_("Receipt number"), str(receipt.receipt_number))
    pen.row(_("Meter number"), receipt.drn)
    pen.row(_("Customer"), pen.own(receipt.customer_name_en, receipt.customer_name_ar), figures=False)
    pen.row(_("Address"), pen.own(receipt.address_en, receipt.address_ar), figures=False)
    pen.row(_("Tariff"), pen.own(receipt.tariff_name_en, receipt.tariff_name_ar), figures=False)
    pen.row(_("Time of payment"), when_text(receipt.paid_at, code), figures=False)
    pen.row(_("Time of issue"), when_text(receipt.issued_at, code), figures=False)
    pen.row(_("Payment reference"), receipt.payment_reference, size=8.5)
    pen.rule()


def _draw_money(pen: _Pen, receipt: Receipt, _: Gettext) -> None:
    third = WIDTH_MM / 3
    per = _("Baisa per kWh") if receipt.commodity == "electricity" else _("Baisa per cubic metre")
    pen.put(_("Units"), width=third, size=9, ink=QUIET)
    pen.put(per, start=third, width=third, size=9, ink=QUIET, align="centre")
    pen.put(_("Amount, OMR"), start=2 * third, width=third, size=9, ink=QUIET, align="end")
    pen.y += ROW_MM
    for step in receipt.steps:
        pen.put(decimal_text(step.units_tenths, 10, 1), width=third, figures=True)
        pen.put(rate_text(step.rate_micro), start=third, width=third, align="centre", figures=True)
        pen.put(money_number(step.amount_minor), start=2 * third, width=third, align="end", figures=True)
        pen.y += ROW_MM
    pen.rule()
    charge = _("Electricity") if receipt.commodity == "electricity" else _("Water")
    pen.row(charge, money_number(receipt.energy_minor))
    rate = f"{rate_text(receipt.vat_basis_points * 10)}%"
    pen.put(rate, start=third, width=third, align="centre", ink=QUIET, figures=True)
    pen.row(_("VAT"), money_number(receipt.vat_minor))
    if receipt.arrears_minor:
        pen.row(_("Paid towards arrears"), money_number(receipt.arrears_minor))
    if receipt.change_minor:
        pen.row(_("Kept as your credit"), money_number(receipt.change_minor))
    pen.rule()
    pen.row(_("Total paid, OMR"), money_number(receipt.amount_minor), bold=True)


def _draw_foot(pen: _Pen, _: Gettext) -> None:
    pen.y = pen.height - MARGIN_MM - 2 * ROW_MM
    pen.put(
        _("Type the 20 digits at your meter. The token works on this meter only, and once."),
        size=9,
        ink=QUIET,
    )
    pen.y += ROW_MM
    pen.put(_("Times are those of Muscat (UTC+4)."), size=9, ink=QUIET)
