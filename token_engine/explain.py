"""A token taken apart field by field, for people who ask what twenty digits say."""

from dataclasses import dataclass

from token_engine.cipher import PRODUCTION, StaTables
from token_engine.decode import KEY_CHANGE_SUBCLASSES, DecodedToken, decode, decode_clear, decrypt_block
from token_engine.encode import (
    ALL_TESTS,
    CLEAR_ALL_REGISTERS,
    CLEAR_CREDIT,
    CREDIT,
    EXTENDED_SET,
    FIRST_SECTION,
    FLAG_INDEX,
    FOURTH_SECTION,
    MANAGEMENT,
    SECOND_SECTION,
    SET_POWER_LIMIT,
    SET_UNBALANCE_LIMIT,
    TEST,
    THIRD_SECTION,
)
from token_engine.errors import TokenRejected
from token_engine.fields import from_digits, token_crc, untranspose
from token_engine.identifiers import BaseDate, EncryptionAlgorithm, KeyType
from token_engine.key_material import DecoderKey
from token_engine.token_result import TokenResult

CLASS_NAMES = ("credit", "test or display", "management", "reserved")
CREDIT_NAMES = (
    "electricity",
    "water",
    "gas",
    "connection time",
    "electricity in currency",
    "water in currency",
    "gas in currency",
    "connection time in currency",
)
MANAGEMENT_NAMES = {
    0: "set maximum power limit",
    1: "clear credit",
    2: "set tariff rate",
    3: "first section of a key change",
    4: "second section of a key change",
    5: "clear tamper condition",
    6: "set maximum phase power unbalance",
    7: "set water meter factor",
    8: "third section of a key change",
    9: "fourth section of a key change",
    10: "extended set",
}
TEST_NAMES = (
    "load switch",
    "information display",
    "cumulative kWh",
    "key revision number",
    "tariff index",
    "token reader",
    "power limit",
    "tamper status",
    "power consumption",
    "software version",
    "phase unbalance limit",
    "water factor",
    "tariff rate",
    "encryption algorithm",
    "number of key-change tokens",
    "supply group code",
    "key expiry number",
    "meter number",
)
FLAG_NAMES = (
    "CTS test",
    "detect tamper",
    "disconnect service",
    "disconnect on tamper",
    "disconnect on power limit",
    "disconnect on under-frequency",
    "electricity payment mode",
    "water payment mode",
    "gas payment mode",
    "time payment mode",
    "commissioning mode",
    "fallback power limit of the tariff index",
)
_UNITS = ("0.1 kWh", "0.1 m3", "0.1 m3", "0.1 min")


@dataclass(frozen=True, slots=True)
class FieldRow:
    """One field: its name, its bits as `high..low` of the 64-bit data block, the raw number, what it means."""

    name: str
    bits: str
    raw: int
    meaning: str


def explain(
    digits: str,
    key: DecoderKey | None = None,
    ea: EncryptionAlgorithm = EncryptionAlgorithm.STA,
    base_date: BaseDate | None = None,
    tables: StaTables = PRODUCTION,
) -> list[FieldRow]:
    """The fields of a token, without its key only as far as they are clear.

    A token that does not check under the key still gives its class, block and the two CRCs that differ.
    Raises TokenRejected(FORMAT_ERROR) for what is not a token, InvalidKey for a key of the wrong size.
    """
    token = from_digits(digits)
    token_class, block = untranspose(token)
    rows = [
        FieldRow("token", "65..0", token, f"{token:017x}"),
        FieldRow("class", "65..64", token_class, CLASS_NAMES[token_class]),
        FieldRow("block", "63..0", block, f"{block:016x}" + ("" if token_class == TEST else " (encrypted)")),
    ]
    if token_class != TEST and key is None:
        return rows
    try:
        decoded = decode_clear(digits) if key is None else decode(digits, key, ea, tables)
    except TokenRejected as rejected:
        if rejected.result is TokenResult.CRC_ERROR:
            if token_class != TEST and key is not None:
                block = decrypt_block(key, ea, block, tables)
            wanted = token_crc(token_class, block >> 16)
            rows.append(FieldRow("CRC", "15..0", block & 0xFFFF, f"does not check: {wanted:04x} expected"))
        return rows
    rows.append(FieldRow("subclass", "63..60", decoded.subclass, _subclass_name(decoded)))
    rows += _payload_rows(decoded, ea, base_date)
    rows.append(FieldRow("CRC", "15..0", decoded.crc, f"{decoded.crc:04x}, checks"))
    return rows


def _subclass_name(token: DecodedToken) -> str:
    if token.token_class == CREDIT:
        return CREDIT_NAMES[token.subclass] if token.subclass < len(CREDIT_NAMES) else "reserved"
    if token.token_class == MANAGEMENT:
        return MANAGEMENT_NAMES.get(token.subclass, "of the manufacturer")
    names = ("test, 2-digit manufacturer", "test, 4-digit manufacturer", "extended read")
    return names[token.subclass] if token.subclass < len(names) else "reserved or of the manufacturer"


def _payload_rows(token: DecodedToken, ea: EncryptionAlgorithm, base_date: BaseDate | None) -> list[FieldRow]:
    if token.token_class == TEST:
        return _test_rows(token)
    if token.token_class == MANAGEMENT and token.subclass in KEY_CHANGE_SUBCLASSES:
        return _section_rows(token, ea)
    rows = [FieldRow("S&E" if token.is_currency else "RND", "59..56", token.nibble, "")]
    tid = token.tid or 0
    rows.append(FieldRow("TID", "55..32", tid, _tid_meaning(tid, base_date)))
    meaning = _credit_meaning(token) if token.token_class == CREDIT else _management_meaning(token)
    rows.append(FieldRow("value", "31..16", token.value, meaning))
    return rows


def _tid_meaning(tid: int, base_date: BaseDate | None) -> str:
    return f"{base_date.instant_of(tid):%Y-%m-%d %H:%M} UTC" if base_date else "minutes from the base date"


def _credit_meaning(token: DecodedToken) -> str:
    if token.is_currency:
        sign = "-" if token.amount < 0 else ""
        whole, rest = divmod(abs(token.amount), 100_000)
        return f"{sign}{whole}.{rest:05d} currency units"
    if token.subclass >= len(_UNITS):
        return "reserved"
    whole, rest = divmod(token.amount, 10)
    return f"{whole}.{rest} {_UNITS[token.subclass].removeprefix('0.1 ')}"


def _management_meaning(token: DecodedToken) -> str:
    value = token.value
    if token.subclass in {SET_POWER_LIMIT, SET_UNBALANCE_LIMIT}:
        return f"{token.amount} W"
    if token.subclass == CLEAR_CREDIT:
        if value == CLEAR_ALL_REGISTERS:
            return "all registers"
        return CREDIT_NAMES[value] if value < len(CREDIT_NAMES) else "unknown register"
    if token.subclass == EXTENDED_SET:
        index, flag, low = value >> 10, value >> 1 & 0x1FF, value & 0x3FF
        if index != FLAG_INDEX:
            return f"item {index} = {low}"
        name = FLAG_NAMES[flag] if flag < len(FLAG_NAMES) else "unknown"
        return f"flag {flag} ({name}) {'on' if value & 1 else 'off'}"
    return f"{value:04x}"


def _test_rows(token: DecodedToken) -> list[FieldRow]:
    mfr_bits = 16 if token.subclass == 1 else 8
    control, mfr_code = token.payload44 >> mfr_bits, token.payload44 & (1 << mfr_bits) - 1
    low = 16 + mfr_bits
    if token.subclass == 2:
        meaning = {0: "read control", 0xFC0000000: "read flag"}.get(control, "")
        return [
            FieldRow("field", f"59..{low}", control, meaning),
            FieldRow("low bits", "23..16", mfr_code, ""),
        ]
    everything = ALL_TESTS >> (mfr_bits - 8)
    names = ["everything"] if control == everything else _names_of_bits(control)
    return [
        FieldRow("control", f"59..{low}", control, ", ".join(names)),
        FieldRow("manufacturer", f"{low - 1}..16", mfr_code, ""),
    ]


def _names_of_bits(control: int) -> list[str]:
    return [name for bit, name in enumerate(TEST_NAMES) if control >> bit & 1]


def _section_rows(token: DecodedToken, ea: EncryptionAlgorithm) -> list[FieldRow]:
    """Fields of a key-change section; the part of the key itself is never shown."""
    bits, rows = token.payload44, []
    if token.subclass == FIRST_SECTION:
        rows = [
            FieldRow("KEN high", "59..56", bits >> 40, ""),
            FieldRow("KRN", "55..52", bits >> 36 & 15, "revision of the new key"),
            FieldRow(
                "RO",
                "51..51",
                bits >> 35 & 1,
                "empties the TID store" if bits >> 35 & 1 else "keeps the TID store",
            ),
            FieldRow("3KCT", "50..50", bits >> 34 & 1, "a third token follows" if bits >> 34 & 1 else ""),
            FieldRow("KT", "49..48", bits >> 32 & 3, KeyType(bits >> 32 & 3).name),
        ]
    elif token.subclass == SECOND_SECTION:
        rows = [
            FieldRow("KEN low", "59..56", bits >> 40, ""),
            FieldRow("TI", "55..48", bits >> 32 & 0xFF, "tariff index of the new key"),
        ]
    elif ea is not EncryptionAlgorithm.MISTY1:
        return [FieldRow("SGC", "59..36", bits >> 20, f"{bits >> 20:06d}")]
    else:
        half = {THIRD_SECTION: "SGC low", FOURTH_SECTION: "SGC high"}[token.subclass]
        rows = [FieldRow(half, "59..48", bits >> 32, "")]
    return [*rows, FieldRow("part of the new key", "47..16", 0, "hidden")]
