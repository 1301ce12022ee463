"""Runs test vectors against the engine and says at which step one differs: pure, the command line prints."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from token_engine.cipher import PRODUCTION, SAMPLE, sta_encrypt
from token_engine.decode import decode
from token_engine.decoder_key import VendingKey, control_block, derive, dkga04_message, pan_block
from token_engine.encode import (
    FIRST_SECTION,
    SECOND_SECTION,
    THIRD_SECTION,
    KeyChange,
    extended_read_token,
    key_change_payloads,
    meter_test_token,
    seal,
)
from token_engine.errors import TokenEngineError
from token_engine.fields import (
    crc16,
    encode_amount,
    encode_currency,
    pack_payload,
    transpose,
)
from token_engine.identifiers import (
    BaseDate,
    EncryptionAlgorithm,
    KeyGeneration,
    KeyType,
    MeterKeyIdentity,
    luhn_digit,
    luhn_valid,
    next_tid,
)
from token_engine.key_material import DecoderKey, VendingKeyMaterial
from token_engine.misty1 import misty1_decrypt, misty1_encrypt
from token_engine.openpaygo import PaygoAccepted, PaygoDevice, PaygoKey, PaygoType, accept, issue

Entry = dict[str, Any]

CURRENCY_SCALE = 100_000


@dataclass(frozen=True, slots=True)
class VectorResult:
    """One vector: passed, or the first step where the engine differs and the two values."""

    algorithm: str
    source: str
    passed: bool
    step: str = ""
    expected: str = ""
    got: str = ""


@dataclass(frozen=True, slots=True)
class ConformanceReport:
    """All vectors of a run, in order."""

    results: tuple[VectorResult, ...]

    @property
    def passed(self) -> int:
        """How many reproduce."""
        return sum(result.passed for result in self.results)

    @property
    def failures(self) -> tuple[VectorResult, ...]:
        """Those that do not."""
        return tuple(result for result in self.results if not result.passed)

    def by_algorithm(self) -> dict[str, tuple[int, int]]:
        """(passed, all) for each algorithm, in order of first appearance."""
        counts: dict[str, tuple[int, int]] = {}
        for result in self.results:
            good, total = counts.get(result.algorithm, (0, 0))
            counts[result.algorithm] = (good + result.passed, total + 1)
        return counts


class _Differs(Exception):
    def __init__(self, step: str, expected: object, got: object) -> None:
        super().__init__(step)
        self.finding = (step, str(expected), str(got))


def run(entries: Iterable[Entry]) -> ConformanceReport:
    """Run every entry of a vector file (see tests/vectors). A malformed entry fails at step `entry`."""
    return ConformanceReport(tuple(run_entry(entry) for entry in entries))


def run_entry(entry: Entry) -> VectorResult:
    """Run one entry: `algorithm`, `inputs`, `expected`, `source`."""
    algorithm, source = str(entry.get("algorithm", "?")), str(entry.get("source", "?"))
    try:
        _check_for(algorithm)(algorithm, entry["inputs"], entry["expected"])
    except _Differs as differs:
        return VectorResult(algorithm, source, False, *differs.finding)
    except TokenEngineError as error:
        return VectorResult(algorithm, source, False, "refused", str(entry.get("expected")), str(error))
    except (KeyError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        return VectorResult(algorithm, source, False, "entry", "a readable entry", repr(error))
    return VectorResult(algorithm, source, True)


def _check_for(algorithm: str) -> Callable[[str, Entry, Any], None]:
    exact = {
        "CRC16": _crc,
        "MISTY1": _misty1,
        "DKGA02": _decoder_key,
        "DKGA04": _decoder_key,
        "Luhn check digit": _luhn_digit,
        "Luhn check": _luhn_check,
        "class1-clear": _clear_token,
    }
    if algorithm in exact:
        return exact[algorithm]
    if algorithm.startswith("OpenPAYGO"):
        return _openpaygo
    if algorithm.startswith("EA07 with SAMPLE"):
        return _sample_cipher
    if algorithm.startswith(("DKGA", "EA07", "EA11")):
        return _token
    raise _Differs("algorithm", "a known one", algorithm)


def _same(step: str, expected: object, got: object) -> None:
    if expected != got:
        raise _Differs(step, expected, got)


def _crc(_: str, inputs: Entry, expected: Any) -> None:
    _same("CRC", expected.upper(), f"{crc16(bytes.fromhex(inputs['data'])):04X}")


def _misty1(_: str, inputs: Entry, expected: Any) -> None:
    key, plain = bytes.fromhex(inputs["key"]), int(inputs["plain"], 16)
    cipher = misty1_encrypt(key, plain)
    _same("cipher", expected.lower(), f"{cipher:016x}")
    _same("decrypted", f"{plain:016x}", f"{misty1_decrypt(key, cipher):016x}")


def _sample_cipher(_: str, inputs: Entry, expected: Any) -> None:
    tables = SAMPLE if inputs.get("tables") == "sample" else PRODUCTION
    cipher = sta_encrypt(int(inputs["decoder_key"], 16), int(inputs["data64"], 16), tables)
    _same("token", expected.lower(), f"{transpose(0, cipher):017x}")


def _luhn_digit(_: str, inputs: Entry, expected: Any) -> None:
    _same("check digit", expected, luhn_digit(inputs["digits"]))


def _luhn_check(_: str, inputs: Entry, expected: Any) -> None:
    _same("check", expected, luhn_valid(inputs["drn"]))


def _pan_of(inputs: Entry) -> str:
    if "pan" in inputs:
        return str(inputs["pan"])
    body = f"{inputs['iin']}{inputs['iain']}"
    return body + luhn_digit(body)


def _identity(algorithm: str, inputs: Entry, pan: str) -> MeterKeyIdentity:
    ea = inputs.get("ea") or ("11" if "EA11" in algorithm else "07")
    return MeterKeyIdentity(
        pan=pan,
        sgc=str(inputs["sgc"]),
        ti=int(inputs["ti"]),
        krn=int(inputs["krn"]),
        kt=KeyType(int(inputs.get("kt", KeyType.DUTK))),
        ken=int(inputs.get("ken", 255)),
        ea=EncryptionAlgorithm(int(ea)),
        dkga=KeyGeneration(int(algorithm[4:6])),
        base_date=BaseDate(inputs.get("bd", BaseDate.Y1993)),
    )


def _vending_key(inputs: Entry, meter: MeterKeyIdentity) -> VendingKey:
    return VendingKey(VendingKeyMaterial.from_hex(inputs["vk"]), meter.kt, meter.base_date)


def _derived(inputs: Entry, meter: MeterKeyIdentity) -> DecoderKey:
    key = derive(_vending_key(inputs, meter), meter)
    if "decoder_key" in inputs:
        _same("decoder key", inputs["decoder_key"].lower(), key.reveal().hex())
    return key


def _decoder_key(algorithm: str, inputs: Entry, expected: Any) -> None:
    meter = _identity(algorithm, inputs, _pan_of(inputs))
    if "panblock" in inputs:
        _same("PAN block", inputs["panblock"].lower(), pan_block(meter.pan, meter.kt).hex())
    if "control" in inputs:
        _same("CONTROL block", inputs["control"].lower(), control_block(meter).hex())
    if "data_block" in inputs:
        _same("message", inputs["data_block"].lower(), dkga04_message(meter).hex())
    _same("decoder key", expected.lower(), derive(_vending_key(inputs, meter), meter).reveal().hex())


def _clear_token(_: str, inputs: Entry, expected: Any) -> None:
    subclass = int(inputs["subclass"])
    mfr_bits = 16 if subclass == 1 else 8
    if "payload44" in inputs:
        control, mfr_code = divmod(int(inputs["payload44"], 16), 1 << mfr_bits)
    else:
        control, mfr_code = int(inputs["control"], 16), int(inputs.get("mfr_code", 0))
    if subclass == 2:
        _same("token", expected, extended_read_token(field=control, low=mfr_code))
        return
    token = meter_test_token(control=control, mfr_code=mfr_code, four_digit_mfr=subclass == 1)
    _same("token", expected, token)


def _token(algorithm: str, inputs: Entry, expected: Any) -> None:
    """A class 0 or 2 token: key, TID, value, block, digits, and the same fields read back."""
    if "data48" in inputs or "payload44" in inputs:
        _section(algorithm, inputs, expected)
        return
    ea = EncryptionAlgorithm.MISTY1 if "EA11" in algorithm else EncryptionAlgorithm.STA
    key = (
        _derived(inputs, _identity(algorithm, inputs, inputs["pan"]))
        if "vk" in inputs
        else DecoderKey.from_hex(inputs["decoder_key"])
    )
    nibble = int(inputs["rnd"] if "rnd" in inputs else inputs["rnd_or_SE"])
    value = _value(inputs, nibble)
    tid = _tid(inputs)
    payload = pack_payload(int(inputs["subclass"]), nibble, tid, value)
    token_class = int(inputs["class"])
    _same("token", expected, seal(key, ea, token_class, payload))
    read = decode(expected, key, ea)
    _same("read back", (tid, value, nibble), (read.tid, read.value, read.nibble))


def _tid(inputs: Entry) -> int:
    if "issued" not in inputs:
        return int(inputs["tid"])
    issued = datetime.fromisoformat(inputs["issued"]).replace(tzinfo=UTC)
    tid = next_tid(BaseDate(inputs["bd"]), issued, None)
    _same("TID", int(inputs.get("tid", tid)), tid)
    return tid


def _value(inputs: Entry, nibble: int) -> int:
    value = int(inputs["value16"], 16) if "value16" in inputs else None
    for name, scale in (("amount_tenths", 1), ("limit_W", 1), ("amount", 10)):
        if inputs.get(name) is not None:
            coded = encode_amount(int(Decimal(str(inputs[name])) * scale))
            _same(f"value of {name}", f"{coded if value is None else value:04x}", f"{coded:04x}")
            return coded
    if inputs.get("currency_amount") is not None:
        units = int(Decimal(str(inputs["currency_amount"])) * CURRENCY_SCALE)
        sign_exponent, coded = encode_currency(units)
        _same("sign and exponent", nibble, sign_exponent)
        _same("value of currency_amount", f"{coded if value is None else value:04x}", f"{coded:04x}")
        return coded
    if value is None:
        raise KeyError("value16")
    return value


def _section(algorithm: str, inputs: Entry, expected: Any) -> None:
    """One key-change token: both keys, the 48 bits of its section, the digits."""
    if "data48" in inputs:
        wanted = int(inputs["data48"], 16)
    else:
        wanted = int(inputs["subclass"]) << 44 | int(inputs["payload44"], 16)
    change = _change_of(algorithm, inputs, wanted)
    if "ro" in inputs:
        _same("RO", bool(inputs["ro"]), change.rolls_over)
    made = {payload >> 44: payload for payload in key_change_payloads(change)}
    _same("section", f"{wanted:012x}", f"{made.get(wanted >> 44, 0):012x}")
    _same("token", expected, seal(change.old_key, change.old.ea, 2, wanted))
    read = decode(expected, change.old_key, change.old.ea)
    _same("read back", f"{wanted:012x}", f"{read.subclass << 44 | read.payload44:012x}")


def _change_of(algorithm: str, inputs: Entry, wanted: int) -> KeyChange:
    """Both sides of a key change; what an entry leaves out (KEN, third token) is taken from its own bits."""
    pan, old = str(inputs["pan"]), inputs.get("old", inputs)
    section, kt = wanted >> 44, inputs.get("kt", KeyType.DUTK)
    nibble = wanted >> 40 & 15
    ken = {FIRST_SECTION: nibble << 4 | 15, SECOND_SECTION: 0xF0 | nibble}.get(section, 255)
    third = section == THIRD_SECTION or (section == FIRST_SECTION and bool(wanted >> 34 & 1))
    before = _identity(algorithm, {"kt": kt, **old}, pan)
    after = _identity(algorithm, {"kt": kt, "ken": ken, **inputs["new"]}, pan)
    return KeyChange(
        before,
        after,
        _derived(old, before),
        _derived(inputs["new"], after),
        with_sgc=bool(inputs.get("three_kct_flag", third)),
    )


def _openpaygo(_: str, inputs: Entry, expected: Any) -> None:
    device = PaygoDevice(
        PaygoKey.from_hex(inputs["key"]), int(inputs["starting_code"]), bool(inputs["restricted_digit_set"])
    )
    token_type, count = PaygoType(inputs["token_type"]), int(inputs["count"])
    token = issue(device, token_type, inputs["value_raw"], count, extended=bool(inputs["extended_token"]))
    _same("new count", expected["new_count"], token.new_count)
    _same("token", expected["token"], token.digits)
    read = accept(device, token.digits, count)
    if not isinstance(read, PaygoAccepted):
        raise _Differs("read back", "accepted", read.value)
    _same("read back", (token_type, inputs["value_raw"]), (read.token_type, read.value))
