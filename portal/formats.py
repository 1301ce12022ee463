"""How values are written for people: money, quantities, phones, tokens and times, in Arabic and in English.

Numbers are Latin in both languages and are kept left to right inside right-to-left text (field rules 4.9).
Functions that end in `_text` give plain text for SMS and PDF; the others give markup for pages.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_datetime, format_timedelta
from markupsafe import Markup, escape

MUSCAT = ZoneInfo("Asia/Muscat")
NO_BREAK_SPACE = "\u00a0"
MINOR_PER_OMR = 1000  # baisa; three decimals whatever a locale database says
BASE_PER_UNIT = 1000  # Wh in a kWh; a cubic metre is 1000 litres, each 1000 mL
ML_PER_M3 = 1_000_000
Code = Literal["ar", "en"]

_BAISA = {"ar": "بيسة", "en": "baisa"}
_CURRENCY = {"ar": "ر.ع.", "en": "OMR"}
_UNITS = {
    ("electricity", "ar"): "ك.و.س",
    ("electricity", "en"): "kWh",
    ("water", "ar"): "م³",
    ("water", "en"): "m³",
}
_LOAD_UNITS = {
    ("electricity", "ar"): "واط",
    ("electricity", "en"): "W",
    ("water", "ar"): "لتر/ساعة",
    ("water", "en"): "L/h",
}


def ltr(text: str) -> Markup:
    """Keep `text` left to right whatever stands around it."""
    return Markup('<bdi dir="ltr">{}</bdi>').format(text)


def money_number(amount_minor: int) -> str:
    """Write an amount of baisa as rials with three decimals: 12345 is "12.345"."""
    sign = "-" if amount_minor < 0 else ""
    whole, rest = divmod(abs(amount_minor), MINOR_PER_OMR)
    return f"{sign}{whole:,}.{rest:03d}"


def money_plain(amount_minor: int) -> str:
    """Write an amount as a form sends it back: no thousands mark, 12345 is "12.345"."""
    return money_number(amount_minor).replace(",", "")


def percent_text(basis_points: int) -> str:
    """Write basis points as per cent: 500 is "5%" and 550 is "5.5%"."""
    whole, rest = divmod(basis_points, 100)
    return f"{whole}.{rest:02d}".rstrip("0").rstrip(".") + "%"


def money_text(amount_minor: int, language: str) -> str:
    """Write an amount with its currency as plain text."""
    return f"{money_number(amount_minor)}{NO_BREAK_SPACE}{_CURRENCY[language]}"


def money(amount_minor: int, language: str) -> Markup:
    """Write an amount with its currency for a page."""
    number = ltr(money_number(amount_minor))
    return Markup('<span class="money">{}{}<span class="unit">{}</span></span>').format(
        number, NO_BREAK_SPACE, _CURRENCY[language]
    )


def decimal_text(value: int, scale: int, decimals: int) -> str:
    """Write `value / scale` rounded toward zero to `decimals` places, without floats."""
    sign = "-" if value < 0 else ""
    steps = abs(value) * 10**decimals // scale
    whole, rest = divmod(steps, 10**decimals)
    return f"{sign}{whole:,}" + (f".{rest:0{decimals}d}" if decimals else "")


def quantity_number(value: int, commodity: str, decimals: int | None = None) -> str:
    """Write Wh as kWh (1 decimal) or mL as m3 (3 decimals): what the meter's own display resolves."""
    if commodity == "water":
        return decimal_text(value, ML_PER_M3, 3 if decimals is None else decimals)
    return decimal_text(value, BASE_PER_UNIT, 1 if decimals is None else decimals)


def axis_number(value: int, commodity: str) -> str:
    """Write Wh as kWh or mL as m3 for an axis: as short as it can be told exactly to three decimals."""
    number = decimal_text(value, ML_PER_M3 if commodity == "water" else BASE_PER_UNIT, 3)
    return number.rstrip("0").rstrip(".")


def unit_name(commodity: str, language: str) -> str:
    """Return the unit that people read: kWh or cubic metres."""
    return _UNITS[commodity, language]


def quantity_text(value: int, commodity: str, language: str, decimals: int | None = None) -> str:
    """Write Wh or mL with its unit as plain text."""
    return f"{quantity_number(value, commodity, decimals)}{NO_BREAK_SPACE}{_UNITS[commodity, language]}"


def _measure(number: str, unit: str) -> Markup:
    return Markup('<span class="measure">{}{}<span class="unit">{}</span></span>').format(
        ltr(number), NO_BREAK_SPACE, unit
    )


def quantity(value: int, commodity: str, language: str, decimals: int | None = None) -> Markup:
    """Write Wh or mL with its unit for a page."""
    return _measure(quantity_number(value, commodity, decimals), _UNITS[commodity, language])


def units_text(units_tenths: int, commodity: str, language: str) -> str:
    """Write tenths of a kWh or m3, what a token carries, as plain text."""
    return f"{decimal_text(units_tenths, 10, 1)}{NO_BREAK_SPACE}{_UNITS[commodity, language]}"


def units(units_tenths: int, commodity: str, language: str) -> Markup:
    """Write tenths of a kWh or m3, what a token carries, for a page."""
    return _measure(decimal_text(units_tenths, 10, 1), _UNITS[commodity, language])


def load(value: int, commodity: str, language: str) -> Markup:
    """Write a load in W, or a flow given in mL/h as litres an hour."""
    number = decimal_text(value, 1000, 1) if commodity == "water" else f"{value:,}"
    return _measure(number, _LOAD_UNITS[commodity, language])


def rate(rate_micro: int, commodity: str, language: str) -> Markup:
    """Write micro-rials per kWh or m3 as exact baisa per unit: 22680 is 22.68."""
    whole, part = divmod(rate_micro, 1000)
    number = f"{whole}.{part:03d}".rstrip("0").rstrip(".")
    return _measure(number, f"{_BAISA[language]}/{_UNITS[commodity, language]}")


def phone_text(number: str) -> str:
    """Group an Omani number as +968 9123 4567 with no-break spaces; leave others as they are."""
    if number.startswith("+968") and len(number) == 12:
        return NO_BREAK_SPACE.join((number[:4], number[4:8], number[8:]))
    return number


def phone(number: str) -> Markup:
    """Write a phone number for a page."""
    return ltr(phone_text(number))


def masked_phone(number: str) -> Markup:
    """Write a phone number with all but its last three digits hidden."""
    return ltr("•" * 5 + number[-3:])


def token_text(digits: str) -> str:
    """Group 20 digits as 5 x 4 with no-break spaces, which keep their order in any direction."""
    return NO_BREAK_SPACE.join(digits[i : i + 4] for i in range(0, len(digits), 4))


def token(digits: str) -> Markup:
    """Write a token for a page: no-break spaces and an isolate, two belts."""
    return Markup('<bdi dir="ltr" class="token">{}</bdi>').format(token_text(digits))


def in_muscat(moment: datetime) -> datetime:
    """Return an aware moment on the clock of Muscat."""
    return moment.astimezone(MUSCAT)


def date_text(moment: datetime | date, language: str) -> str:
    """Write a day: 22 November 2026."""
    day = in_muscat(moment).date() if isinstance(moment, datetime) else moment
    return format_date(day, "d MMMM y", locale=language)


def month_text(moment: datetime | date, language: str, *, short: bool = False) -> str:
    """Write a month: November 2026, or Nov."""
    day = in_muscat(moment).date() if isinstance(moment, datetime) else moment
    return format_date(day, "MMM" if short else "MMMM y", locale=language)


def clock_text(moment: datetime) -> str:
    """Write a time of Muscat to the second: 14:05:09."""
    return in_muscat(moment).strftime("%H:%M:%S")


def day_month_text(moment: datetime, language: str) -> str:
    """Write a day without its year: 22 Nov."""
    return format_date(in_muscat(moment).date(), "d MMM", locale=language)


def time_text(moment: datetime) -> str:
    """Write an hour of Muscat: 14:05."""
    return in_muscat(moment).strftime("%H:%M")


def when_text(moment: datetime, language: str) -> str:
    """Write a day and an hour of Muscat: 22 November 2026, 14:05."""
    separator = "، " if language == "ar" else ", "
    return format_datetime(in_muscat(moment), "d MMMM y", locale=language) + separator + time_text(moment)


def when(moment: datetime, language: str, *, seconds: bool = False) -> Markup:
    """Write a moment as a <time> element."""
    text = when_text(moment, language)
    if seconds:
        text += in_muscat(moment).strftime(":%S")
    return Markup('<time datetime="{}">{}</time>').format(moment.astimezone(UTC).isoformat(), text)


def ago_text(moment: datetime, now: datetime, language: str) -> str:
    """Write how long ago, or in how long: 5 minutes ago."""
    return format_timedelta(moment - now, add_direction=True, locale=language, threshold=1.2)


def ago(moment: datetime, now: datetime, language: str) -> Markup:
    """Write how long ago as a <time> element whose title is the full moment."""
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.astimezone(UTC).isoformat(),
        escape(when_text(moment, language)),
        ago_text(moment, now, language),
    )


def duration_text(seconds: int, language: str) -> str:
    """Write a span of time in its largest fitting unit: 2 minutes."""
    return format_timedelta(timedelta(seconds=seconds), locale=language, threshold=1.2)


_EASTERN_DIGITS = {ord(c): str(i % 10) for i, c in enumerate("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹")}


def plain(text: str) -> str:
    """Return what a person wrote without space around it, and without NUL, which PostgreSQL cannot hold."""
    return text.replace("\x00", "").strip()


def latin_digits(text: str) -> str:
    """Turn Arabic-Indic and Persian digits into Latin ones; leave everything else."""
    return text.translate(_EASTERN_DIGITS)
