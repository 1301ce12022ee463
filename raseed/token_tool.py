"""`raseed token`: encode, decode, explain, and run published test vectors: offline; and free units for a fleet."""

from __future__ import annotations

import argparse
import json
import os
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from raseed import free_units_tool
from raseed.settings import Settings

KEY_ENV = "RASEED_DECODER_KEY"
SHOWN_FAILURES = 10
MAX_VECTOR_FILE = 64 * 1024 * 1024  # the largest published sets are under 1 MB
CREDIT_KINDS = {"electricity": 0, "water": 1, "gas": 2, "time": 3}
CURRENCY_KINDS = {"electricity-money": 4, "water-money": 5, "gas-money": 6, "time-money": 7}
MAX_MONEY_DIGITS = 5


class ToolRefused(ValueError):
    """What was asked on the command line cannot be done; the text says why."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `token` and what it does to the command line."""
    token = commands.add_parser("token", help="encode, decode and explain tokens; run test vectors")
    what = token.add_subparsers(dest="what", required=True, metavar="WHAT")
    encode = what.add_parser("encode", help="make a token under a decoder key")
    encode.add_argument(
        "kind",
        choices=[*CREDIT_KINDS, *CURRENCY_KINDS, "test", "power-limit", "clear-credit", "clear-tamper"],
    )
    encode.add_argument(
        "--amount", help="kWh, m3 or minutes (one decimal); money (five); watts; a register; a test's control"
    )
    encode.add_argument("--issued", help="time of issue, ISO 8601, UTC when it names no zone (now)")
    encode.add_argument("--tid", type=int, help="the TID itself, instead of a time of issue")
    encode.add_argument("--rnd", type=int, help="the random nibble, 0 to 15 (from the time of issue)")
    for name, text in (
        ("decode", "read a token's fields"),
        ("explain", "each field, bit for bit, and what a meter would do"),
    ):
        command = what.add_parser(name, help=text)
        command.add_argument(
            "digits", nargs="+", help="20 digits; spaces, hyphens and Arabic digits are fine"
        )
        command.set_defaults(run=_explain if name == "explain" else _decode)
    encode.set_defaults(run=_encode)
    for command in what.choices.values():
        command.add_argument("--ea", choices=("07", "11"), default="07", help="encryption algorithm (07)")
        command.add_argument(
            "--base-date", choices=("1993", "2014", "2035"), default="2014", help="base date (2014)"
        )
        command.add_argument(
            "--decoder-key-file",
            type=Path,
            metavar="FILE",
            help=f"file with the key in hexadecimal (or set {KEY_ENV})",
        )
        command.add_argument(
            "--sample-tables", action="store_true", help="the standard's printed example tables"
        )
    conformance = what.add_parser("conformance", help="run vector files; exit 1 when one differs")
    conformance.add_argument("files", nargs="+", type=Path, metavar="FILE")
    conformance.set_defaults(run=_conformance)
    free_units_tool.add_command(what)


def _conformance(options: argparse.Namespace, _settings: Settings) -> int:
    from token_engine import conformance

    failed = False
    for path in options.files:
        report = conformance.run(_entries(path))
        print(f"{path.name}: {report.passed} passed, {len(report.failures)} failed")
        for algorithm, (good, total) in report.by_algorithm().items():
            print(f"  {algorithm:<24} {good:>5} of {total}")
        for failure in report.failures[:SHOWN_FAILURES]:
            print(
                f"  FAILED {failure.algorithm} at step «{failure.step}»: expected {failure.expected}, got {failure.got}"
            )
            print(f"         {failure.source}")
        if len(report.failures) > SHOWN_FAILURES:
            print(f"  … and {len(report.failures) - SHOWN_FAILURES} more")
        failed = failed or bool(report.failures) or not report.results
        if not report.results:
            print("  FAILED: the file holds no vector")
    return 1 if failed else 0


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_VECTOR_FILE:
            raise ToolRefused(f"{path} is larger than any set of vectors")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ToolRefused(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ToolRefused(f"{path} is not JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise ToolRefused(f"{path} is not a list of vectors (algorithm, inputs, expected, source)")
    return content


def _encode(options: argparse.Namespace, _settings: Settings) -> int:
    from token_engine import encode
    from token_engine.encode import ALL_TESTS
    from token_engine.errors import TokenEngineError
    from token_engine.token_text import group_digits

    try:
        if options.kind == "test":
            control = int(options.amount, 0) if options.amount else ALL_TESTS
            print("2-digit manufacturers:", group_digits(encode.meter_test_token(control=control), " "))
            if control < 1 << 28 or control == ALL_TESTS:
                four = encode.meter_test_token(control=control & ((1 << 28) - 1), four_digit_mfr=True)
                print("4-digit manufacturers:", group_digits(four, " "))
            return 0
        digits, carried = _sealed(options)
    except (TokenEngineError, InvalidOperation, ValueError) as error:
        raise ToolRefused(str(error) or "the amount is not a number") from error
    print(group_digits(digits, " "))
    if carried:
        print(carried)
    return 0


def _sealed(options: argparse.Namespace) -> tuple[str, str]:
    from token_engine import encode
    from token_engine.fields import decode_amount, encode_amount

    key, ea = _key(options), _algorithm(options)
    if key is None:
        raise ToolRefused(
            f"this token is encrypted: give the decoder key with --decoder-key-file FILE or {KEY_ENV}"
        )
    tid, rnd = _tid_and_rnd(options)
    if options.kind == "clear-tamper":
        return encode.clear_tamper_token(key, ea, tid=tid, rnd=rnd), ""
    if not options.amount:
        raise ToolRefused(f"{options.kind} needs --amount")
    if options.kind == "clear-credit":
        return encode.clear_credit_token(key, ea, register=int(options.amount, 0), tid=tid, rnd=rnd), ""
    if options.kind in CURRENCY_KINDS:
        units = _scaled(options.amount, MAX_MONEY_DIGITS)
        return encode.currency_token(key, ea, subclass=CURRENCY_KINDS[options.kind], units=units, tid=tid), ""
    if options.kind == "power-limit":
        watts = _scaled(options.amount, 0)
        return (
            encode.power_limit_token(key, ea, watts=watts, tid=tid, rnd=rnd),
            f"carries {decode_amount(encode_amount(watts))} W",
        )
    tenths = _scaled(options.amount, 1)
    carried = decode_amount(encode_amount(tenths))
    digits = encode.credit_token(
        key, ea, subclass=CREDIT_KINDS[options.kind], amount=tenths, tid=tid, rnd=rnd
    )
    return digits, f"carries {carried // 10}.{carried % 10}"


def _scaled(text: str, places: int) -> int:
    value = Decimal(text).scaleb(places)
    if not value.is_finite() or value != value.to_integral_value():
        raise ToolRefused(f"{text}: at most {places} decimals")
    return int(value)


def _tid_and_rnd(options: argparse.Namespace) -> tuple[int, int]:
    from token_engine.identifiers import next_tid, rnd_at

    issued = datetime.fromisoformat(options.issued) if options.issued else datetime.now(UTC)
    issued = issued if issued.tzinfo else issued.replace(tzinfo=UTC)
    tid = options.tid if options.tid is not None else next_tid(_base_date(options), issued, None)
    return tid, options.rnd if options.rnd is not None else rnd_at(issued)


def _decode(options: argparse.Namespace, _settings: Settings) -> int:
    return _rows(options, detailed=False)


def _explain(options: argparse.Namespace, _settings: Settings) -> int:
    return _rows(options, detailed=True)


def _rows(options: argparse.Namespace, *, detailed: bool) -> int:
    from token_engine.cipher import PRODUCTION, SAMPLE
    from token_engine.errors import TokenEngineError
    from token_engine.explain import explain
    from token_engine.token_text import group_digits, normalise_digits

    tables = SAMPLE if options.sample_tables else PRODUCTION
    try:
        digits = normalise_digits(" ".join(options.digits))
        rows = explain(digits, _key(options), _algorithm(options), _base_date(options), tables)
    except TokenEngineError as error:
        raise ToolRefused(str(error)) from error
    print(group_digits(digits, " "))
    good = True
    for row in rows:
        good = good and "does not check" not in row.meaning
        where = f"bits {row.bits:<8} 0x{row.raw:<18x} " if detailed else ""
        print(f"  {row.name:<12} {where}{row.meaning}")
    if detailed:
        print(f"  a meter      {_verdict(options, digits)}")
    return 0 if good else 1


def _verdict(options: argparse.Namespace, digits: str) -> str:
    """What a fresh meter with this key would do with the token."""
    from token_engine.acceptance import MeterCapabilities, MeterTokenState, enter
    from token_engine.cipher import PRODUCTION, SAMPLE
    from token_engine.identifiers import KeyGeneration, KeyType, MeterKeyIdentity, MeterPan

    key = _key(options)
    if key is None:
        return "needs its decoder key to say (only class 1 is readable without one)"
    ea = _algorithm(options)
    identity = MeterKeyIdentity(
        pan=str(MeterPan("600727000000000009")),
        sgc="000000",
        ti=1,
        krn=1,
        kt=KeyType.DUTK,
        ken=255,
        ea=ea,
        dkga=KeyGeneration.DKGA04,
        base_date=_base_date(options),
    )
    caps = MeterCapabilities(credit_subclasses=frozenset(range(8)))
    tables = SAMPLE if options.sample_tables else PRODUCTION
    _state, outcome = enter(MeterTokenState(identity, key, caps), digits, datetime.now(UTC), tables=tables)
    words = f"would answer {outcome.result.name} (display code {outcome.display_code})"
    return f"{words}: {outcome.effect}" if outcome.effect else words


def _key(options: argparse.Namespace) -> Any:
    from token_engine.errors import InvalidKey
    from token_engine.key_material import DecoderKey

    try:
        text = (
            options.decoder_key_file.read_text(encoding="ascii")
            if options.decoder_key_file
            else os.environ.get(KEY_ENV, "")
        )
        return DecoderKey.from_hex(text.strip()) if text.strip() else None
    except OSError as error:
        raise ToolRefused(f"{options.decoder_key_file} cannot be read: {error.strerror}") from None
    except (InvalidKey, UnicodeDecodeError) as error:
        raise ToolRefused(f"the decoder key is not usable: {error}") from None


def _algorithm(options: argparse.Namespace) -> Any:
    from token_engine.identifiers import EncryptionAlgorithm

    return next(ea for ea in EncryptionAlgorithm if ea.text == options.ea)


def _base_date(options: argparse.Namespace) -> Any:
    from token_engine.identifiers import BaseDate

    return BaseDate(options.base_date[2:])
