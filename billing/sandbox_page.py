"""The sandbox provider's hosted page, in Arabic and English: self-contained HTML without script."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from urllib.parse import urlsplit

from billing.quantity import MINOR_PER_OMR

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --paper: #ffffff; --line: #c8cfdd; --deep: #3b2a78; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edf0f7; --paper: #191d27; --line: #49506180; --deep: #b7a6ff; } }
* { box-sizing: border-box; }
body { margin: 0; font: 1rem/1.6 system-ui, "Noto Naskh Arabic", sans-serif; color: var(--ink);
  background: var(--paper); }
main { max-inline-size: 26rem; margin-inline: auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.25rem; margin-block: 0 0.25rem; color: var(--deep); }
.note { margin-block: 0 1.25rem; font-size: 0.9rem; }
.amount { font-size: 2rem; font-weight: 700; margin-block: 0 1.25rem; }
form { display: grid; gap: 0.75rem; }
button { font: inherit; padding: 0.75rem 1rem; border: 1px solid var(--line); border-radius: 0.5rem;
  background: transparent; color: inherit; text-align: start; cursor: pointer; min-block-size: 3rem; }
button.first { background: var(--deep); color: var(--paper); border-color: var(--deep); font-weight: 700; }
button:focus-visible, a:focus-visible { outline: 3px solid var(--deep); outline-offset: 2px; }
h2 { font-size: 1rem; margin-block: 1.5rem 0.5rem; }
a { color: var(--deep); }
"""

_WORDS: dict[str, dict[str, str]] = {
    "en": {
        "title": "Sandbox bank",
        "note": "A pretend bank for trying things out. No money moves.",
        "currency": "OMR",
        "pay": "Pay",
        "more": "Trouble, as real banks have it",
        "pay_late": "Pay, and tell the utility 8 seconds late",
        "pay_twice": "Pay, and tell the utility twice",
        "pay_silent": "Pay, and never tell: the utility has to ask",
        "decline": "Decline",
        "decline_then_pay": "Decline, then change our mind",
        "decided": "This payment is decided already.",
        "back": "Back to the utility",
        "bad": "This payment link is not valid any more.",
        "bad_note": "Go back to the utility and start the payment again.",
    },
    "ar": {
        "title": "البنك التجريبي",
        "note": "بنك وهمي للتجربة فقط، ولا تُخصم منه أي أموال.",
        "currency": "ر.ع.",
        "pay": "ادفع",
        "more": "أعطال كما تحدث في البنوك الحقيقية",
        "pay_late": "ادفع وأبلغ الشركة بعد 8 ثوانٍ",
        "pay_twice": "ادفع وأبلغ الشركة مرتين",
        "pay_silent": "ادفع دون إبلاغ الشركة، فعليها أن تسأل",
        "decline": "ارفض العملية",
        "decline_then_pay": "ارفض العملية ثم تراجع عن الرفض",
        "decided": "هذه العملية محسومة من قبل.",
        "back": "العودة إلى الشركة",
        "bad": "رابط الدفع هذا لم يعد صالحًا.",
        "bad_note": "ارجع إلى الشركة وابدأ الدفع من جديد.",
    },
}
_TROUBLE = ("pay_late", "pay_twice", "pay_silent", "decline_then_pay", "decline")


def amount_text(amount_minor: int) -> str:
    """Baisa as rials with three decimals."""
    whole, rest = divmod(amount_minor, MINOR_PER_OMR)
    return f"{whole:,}.{rest:03d}"


def pay_page(*, language: str, amount_minor: int, fields: Mapping[str, str]) -> str:
    """The page with one button a behaviour; `fields` are the signed parameters, sent along."""
    words = _words(language)
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in fields.items()
    )
    trouble = "".join(
        f'<button name="behaviour" value="{name}">{escape(words[name])}</button>' for name in _TROUBLE
    )
    amount = f'<bdi dir="ltr">{amount_text(amount_minor)}</bdi>&nbsp;{escape(words["currency"])}'
    return _page(
        language,
        f'<p class="amount">{amount}</p><form method="post" action="/pay">{hidden}'
        f'<button class="first" name="behaviour" value="pay">{escape(words["pay"])}</button>'
        f"<h2>{escape(words['more'])}</h2>{trouble}</form>",
    )


def decided_page(*, language: str, return_url: str) -> str:
    """The page of a payment on which a button was pressed before."""
    words = _words(language)
    return _page(
        language,
        f'<p>{escape(words["decided"])}</p><p><a href="{escape(return_url)}">{escape(words["back"])}</a></p>',
    )


def refused_page(language: str) -> str:
    """The page for a link that is forged or too old."""
    words = _words(language)
    return _page(
        language, f"<p><strong>{escape(words['bad'])}</strong></p><p>{escape(words['bad_note'])}</p>"
    )


def content_policy(return_url: str = "") -> str:
    """What the page may do: show itself, and send its form here and back to the utility."""
    parts = urlsplit(return_url)
    origin = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'{origin}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )


def _words(language: str) -> dict[str, str]:
    return _WORDS["en" if language == "en" else "ar"]


def _page(language: str, content: str) -> str:
    words = _words(language)
    code, direction = ("en", "ltr") if language == "en" else ("ar", "rtl")
    return (
        f'<!doctype html><html lang="{code}" dir="{direction}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(words['title'])}</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>{escape(words["title"])}</h1><p class="note">{escape(words["note"])}</p>{content}'
        "</main></body></html>"
    )
