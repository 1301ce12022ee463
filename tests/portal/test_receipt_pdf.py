"""The receipt: one page, the same bytes each time, and digits in their order in both languages."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portal.receipt_pdf import Receipt, ReceiptStep, rate_text, receipt_pdf

RECEIPT = Receipt(
    receipt_number=1042,
    drn="07123456783",
    commodity="electricity",
    customer_name_en="Salim Al-Harthi",
    customer_name_ar="سالم الحارثي",
    address_en="House 12, Way 2704, Al Khuwair",
    address_ar="منزل 12، سكة 2704، الخوير",
    tariff_name_en="Residential",
    tariff_name_ar="سكني",
    token_digits="12345678901234567890",
    units_tenths=4123,
    amount_minor=10_000,
    arrears_minor=2_000,
    vat_minor=381,
    vat_basis_points=500,
    energy_minor=7_615,
    change_minor=4,
    steps=(ReceiptStep(2000, 14_000, 2_800), ReceiptStep(2123, 22_680, 4_815)),
    payment_reference="SBX-7F3A21",
    paid_at=datetime(2026, 11, 22, 20, 30, tzinfo=UTC),
    issued_at=datetime(2026, 11, 22, 20, 30, 4, tzinfo=UTC),
)


@pytest.mark.parametrize("language", ["ar", "en"])
def test_one_page_and_the_same_bytes_again(language: str) -> None:
    made = receipt_pdf(RECEIPT, language)
    assert made.startswith(b"%PDF-")
    assert made.rstrip().endswith(b"%%EOF")
    assert re.search(rb"/Count 1\b", made)
    assert made.count(b"/FontFile2") == 2, "regular and bold travel inside the file"
    assert f"/Lang ({language})".encode() in made
    assert made == receipt_pdf(RECEIPT, language)
    assert made != receipt_pdf(replace(RECEIPT, receipt_number=1043), language)


def test_a_long_tariff_gets_a_longer_page() -> None:
    height = re.compile(rb"/MediaBox \[0 0 [\d.]+ ([\d.]+)\]")
    short, long = (
        height.search(receipt_pdf(replace(RECEIPT, steps=RECEIPT.steps[:1] * count), "en"))
        for count in (4, 7)
    )
    assert short is not None
    assert long is not None
    assert float(long[1]) > float(short[1])


def test_a_language_without_a_receipt_is_refused() -> None:
    with pytest.raises(ValueError, match="'fr'"):
        receipt_pdf(RECEIPT, "fr")


@pytest.mark.parametrize(
    ("rate_micro", "text"),
    [(14_000, "14"), (22_680, "22.68"), (1_001, "1.001"), (50, "0.05"), (0, "0"), (1_200_000, "1200")],
)
def test_a_rate_is_exact_baisa(rate_micro: int, text: str) -> None:
    assert rate_text(rate_micro) == text


def _text(made: bytes, folder: Path) -> str:
    pdf = folder / "receipt.pdf"
    pdf.write_bytes(made)
    done = subprocess.run(["pdftotext", "-layout", str(pdf), "-"], capture_output=True, check=True)
    return done.stdout.decode().replace("\u00a0", " ")


needs_poppler = pytest.mark.skipif(shutil.which("pdftotext") is None, reason="pdftotext is not installed")


@needs_poppler
@pytest.mark.parametrize("language", ["ar", "en"])
def test_digits_are_set_in_their_order(language: str, tmp_path: Path) -> None:
    text = re.sub(r" +", " ", _text(receipt_pdf(RECEIPT, language), tmp_path))
    for expected in (
        "1234 5678 9012 3456 7890",
        "412.3",
        "07123456783",
        "OM1100000000",
        "SBX-7F3A21",
        "5%",
        "22.68",
        "2.800",
        "4.815",
        "7.615",
        "0.381",
        "2.000",
        "0.004",
        "10.000",
    ):
        assert expected in text


@needs_poppler
def test_the_clock_is_that_of_muscat_and_absent_parts_have_no_row(tmp_path: Path) -> None:
    text = _text(receipt_pdf(RECEIPT, "en"), tmp_path)
    assert "23 November 2026, 00:30" in text
    assert "arrears" in text
    plain = _text(receipt_pdf(replace(RECEIPT, arrears_minor=0, change_minor=0), "en"), tmp_path)
    assert "arrears" not in plain
    assert "your credit" not in plain


@needs_poppler
def test_water_is_sold_by_the_cubic_metre(tmp_path: Path) -> None:
    text = _text(receipt_pdf(replace(RECEIPT, commodity="water"), "en"), tmp_path)
    assert "412.3 cubic metres" in text
    assert "kWh" not in text
