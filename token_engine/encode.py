"""From fields and a decoder key to the 20 digits of a token (sts.md 2, 3)."""

from dataclasses import dataclass

from token_engine.cipher import PRODUCTION, StaTables, sta_encrypt
from token_engine.errors import InvalidField, InvalidKey
from token_engine.fields import (
    CURRENCY_SUBCLASSES,
    check_bits,
    encode_amount,
    encode_currency,
    pack_payload,
    to_digits,
    token_crc,
    transpose,
)
from token_engine.identifiers import EncryptionAlgorithm, MeterKeyIdentity
from token_engine.key_material import DecoderKey
from token_engine.misty1 import misty1_encrypt

CREDIT, TEST, MANAGEMENT = 0, 1, 2  # token classes
SET_POWER_LIMIT, CLEAR_CREDIT, SET_TARIFF_RATE = 0, 1, 2
FIRST_SECTION, SECOND_SECTION, CLEAR_TAMPER, SET_UNBALANCE_LIMIT, SET_WATER_FACTOR = 3, 4, 5, 6, 7
THIRD_SECTION, FOURTH_SECTION, EXTENDED_SET = 8, 9, 10
CLEAR_ALL_REGISTERS = 0xFFFF
FLAG_INDEX = 63
ALL_TESTS = (1 << 36) - 1


def encrypt_block(
    key: DecoderKey, ea: EncryptionAlgorithm, block: int, tables: StaTables = PRODUCTION
) -> int:
    """One 64-bit block under the algorithm. Raises InvalidKey for a key of the wrong size or EA09."""
    secret = fitting_secret(key, ea)
    if ea is EncryptionAlgorithm.MISTY1:
        return misty1_encrypt(secret, block)
    return sta_encrypt(int.from_bytes(secret, "big"), block, tables)


def fitting_secret(key: DecoderKey, ea: EncryptionAlgorithm) -> bytes:
    """The key's bytes. Raises InvalidKey when their number is not what the algorithm takes."""
    if ea is EncryptionAlgorithm.DEA:
        raise InvalidKey("EA09 (DEA) was withdrawn in Ed. 3 and is not used here")
    secret = key.reveal()
    if len(secret) != ea.key_bytes:
        raise InvalidKey(f"EA{ea.text} takes a decoder key of {ea.key_bytes} bytes")
    return secret


def data_block(token_class: int, payload48: int) -> int:
    """The 64-bit data block: payload and its CRC (or CRC_C)."""
    return payload48 << 16 | token_crc(token_class, payload48)


def seal(
    key: DecoderKey, ea: EncryptionAlgorithm, token_class: int, payload48: int, tables: StaTables = PRODUCTION
) -> str:
    """The 20 digits of an encrypted (class 0 or 2) token."""
    block = encrypt_block(key, ea, data_block(token_class, payload48), tables)
    return to_digits(transpose(token_class, block))


def credit_token(
    key: DecoderKey,
    ea: EncryptionAlgorithm,
    *,
    subclass: int,
    amount: int,
    tid: int,
    rnd: int,
    tables: StaTables = PRODUCTION,
) -> str:
    """Credit of `amount` tenths of kWh, m3 or minute (subclass 0-3); the token carries it rounded up.

    Raises InvalidAmount, InvalidField.
    """
    if not 0 <= subclass <= 3:
        raise InvalidField(f"credit in units has subclass 0 to 3, not {subclass}")
    return seal(key, ea, CREDIT, pack_payload(subclass, rnd, tid, encode_amount(amount)), tables)


def currency_token(
    key: DecoderKey,
    ea: EncryptionAlgorithm,
    *,
    subclass: int,
    units: int,
    tid: int,
    tables: StaTables = PRODUCTION,
) -> str:
    """Credit of money in 1e-5 of the base currency unit (subclass 4-7), which may be negative.

    Raises InvalidAmount, InvalidField.
    """
    if subclass not in CURRENCY_SUBCLASSES:
        raise InvalidField(f"credit in currency has subclass 4 to 7, not {subclass}")
    sign_exponent, value = encode_currency(units)
    return seal(key, ea, CREDIT, pack_payload(subclass, sign_exponent, tid, value), tables)


def meter_test_token(*, control: int, mfr_code: int = 0, four_digit_mfr: bool = False) -> str:
    """A clear test or display token (class 1). `control` is a bit of the test, or ALL_TESTS.

    A manufacturer code of two digits takes subclass 0, of four digits subclass 1; a vending system issues
    both forms. A non-zero code's layout is stated but not pinned by a vector. Raises InvalidField.
    """
    mfr_bits = 16 if four_digit_mfr else 8
    if control == ALL_TESTS:
        control >>= mfr_bits - 8  # all ones in as many bits as the form has
    payload = check_bits("control", control, 44 - mfr_bits) << mfr_bits | check_bits(
        "mfr", mfr_code, mfr_bits
    )
    return _clear_token(1 if four_digit_mfr else 0, payload)


def extended_read_token(*, field: int, low: int = 0) -> str:
    """A clear extended-read token (class 1 subclass 2): 36-bit field then 8 bits. Raises InvalidField."""
    return _clear_token(2, check_bits("field", field, 36) << 8 | check_bits("low", low, 8))


def _clear_token(subclass: int, payload44: int) -> str:
    return to_digits(transpose(TEST, data_block(TEST, subclass << 44 | payload44)))


def management_token(
    key: DecoderKey,
    ea: EncryptionAlgorithm,
    *,
    subclass: int,
    value: int,
    tid: int,
    rnd: int,
    tables: StaTables = PRODUCTION,
) -> str:
    """A class 2 token with RND, TID and a raw 16-bit value. Raises InvalidField for key-change subclasses."""
    if subclass in {FIRST_SECTION, SECOND_SECTION, THIRD_SECTION, FOURTH_SECTION}:
        raise InvalidField("key-change sections have no TID: use key_change_tokens")
    return seal(key, ea, MANAGEMENT, pack_payload(subclass, rnd, tid, value), tables)


def power_limit_token(
    key: DecoderKey,
    ea: EncryptionAlgorithm,
    *,
    watts: int,
    tid: int,
    rnd: int,
    tables: StaTables = PRODUCTION,
) -> str:
    """Set the maximum power limit in watts. Raises InvalidAmount."""
    return management_token(
        key, ea, subclass=SET_POWER_LIMIT, value=encode_amount(watts), tid=tid, rnd=rnd, tables=tables
    )


def unbalance_limit_token(
    key: DecoderKey,
    ea: EncryptionAlgorithm,
    *,
    watts: int,
    tid: int,
    rnd: int,
    tables: StaTables = PRODUCTION,
) -> str:
    """Set the maximum phase power unbalance in watts. Raises InvalidAmount."""
    return management_token(
        key, ea, subclass=SET_UNBALANCE_LIMIT, value=encode_amount(watts), tid=tid, rnd=rnd, tables=tables
    )


def clear_credit_token(
    key: DecoderKey,
    ea: EncryptionAlgorithm,
    *,
    register: int,
    tid: int,
    rnd: int,
    tables: StaTables = PRODUCTION,
) -> str:
    """Clear one credit register (0-3 units, 4-7 currency) or CLEAR_ALL_REGISTERS. Raises InvalidField."""
    if register != CLEAR_ALL_REGISTERS and not 0 <= register <= 7:
        raise InvalidField(f"a credit register is 0 to 7 or FFFF, not {register}")
    return management_token(key, ea, subclass=CLEAR_CREDIT, value=register, tid=tid, rnd=rnd, tables=tables)


def clear_tamper_token(
    key: DecoderKey, ea: EncryptionAlgorithm, *, tid: int, rnd: int, tables: StaTables = PRODUCTION
) -> str:
    """Clear the tamper condition."""
    return management_token(key, ea, subclass=CLEAR_TAMPER, value=0, tid=tid, rnd=rnd, tables=tables)


def extended_set_token(
    key: DecoderKey,
    ea: EncryptionAlgorithm,
    *,
    index: int,
    value: int,
    tid: int,
    rnd: int,
    tables: StaTables = PRODUCTION,
) -> str:
    """Extended set (STS 202-5): index(6) and value(10); see flag_token for index 63. Raises InvalidField."""
    packed = check_bits("index", index, 6) << 10 | check_bits("value", value, 10)
    return management_token(key, ea, subclass=EXTENDED_SET, value=packed, tid=tid, rnd=rnd, tables=tables)


def flag_token(
    key: DecoderKey,
    ea: EncryptionAlgorithm,
    *,
    flag: int,
    on: bool,
    tid: int,
    rnd: int,
    tables: StaTables = PRODUCTION,
) -> str:
    """Set or clear one flag (extended set, index 63: flag(9) value(1)). Raises InvalidField."""
    value = check_bits("flag", flag, 9) << 1 | int(on)
    return extended_set_token(key, ea, index=FLAG_INDEX, value=value, tid=tid, rnd=rnd, tables=tables)


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A move from one identity of a meter to another, and its keys; `with_sgc` adds EA07's third token."""

    old: MeterKeyIdentity
    new: MeterKeyIdentity
    old_key: DecoderKey
    new_key: DecoderKey
    with_sgc: bool = False

    def __post_init__(self) -> None:
        if self.old.pan != self.new.pan:
            raise InvalidKey("a key change stays on one meter")
        if self.old.ea is not self.new.ea:
            raise InvalidKey("a key change keeps the encryption algorithm")
        fitting_secret(self.new_key, self.new.ea)

    @property
    def rolls_over(self) -> bool:
        """RO: true when the base date changes, so that the meter empties its TID store."""
        return self.old.base_date is not self.new.base_date


def key_change_payloads(change: KeyChange) -> tuple[int, ...]:
    """The 48-bit payloads in order: 2 or 3 for EA07, 4 for EA11; all fields are the new key's."""
    new, secret = change.new, change.new_key.reveal()
    misty = new.ea is EncryptionAlgorithm.MISTY1
    third = change.with_sgc and not misty
    first = (
        FIRST_SECTION << 44
        | (new.ken >> 4) << 40
        | new.krn << 36
        | int(change.rolls_over) << 35
        | int(third) << 34
        | new.kt.value << 32
        | int.from_bytes(secret[:4], "big")
    )
    second = SECOND_SECTION << 44 | (new.ken & 15) << 40 | new.ti << 32 | int.from_bytes(secret[-4:], "big")
    sgc = int(new.sgc)
    if misty:
        return (
            first,
            second,
            THIRD_SECTION << 44 | (sgc & 0xFFF) << 32 | int.from_bytes(secret[4:8], "big"),
            FOURTH_SECTION << 44 | (sgc >> 12) << 32 | int.from_bytes(secret[8:12], "big"),
        )
    return (first, second, THIRD_SECTION << 44 | sgc << 20) if third else (first, second)


def key_change_tokens(change: KeyChange, tables: StaTables = PRODUCTION) -> tuple[str, ...]:
    """The key-change tokens in order, all encrypted under the old key (2 or 3 for EA07, 4 for EA11)."""
    return tuple(
        seal(change.old_key, change.old.ea, MANAGEMENT, payload, tables)
        for payload in key_change_payloads(change)
    )
