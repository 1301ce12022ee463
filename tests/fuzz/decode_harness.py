"""What must hold for every text that is read as a token, whatever it is."""

from __future__ import annotations

from tests.fuzz.byte_reader import ByteReader
from token_engine.decode import DecodedToken, class_of, decode, decode_clear
from token_engine.encode import data_block, encrypt_block
from token_engine.errors import InvalidTokenText, TokenRejected
from token_engine.fields import MAX_AMOUNT, MAX_CURRENCY, MAX_TOKEN, to_digits, transpose
from token_engine.identifiers import EncryptionAlgorithm, check_tid
from token_engine.key_material import DecoderKey
from token_engine.token_result import TokenResult
from token_engine.token_text import group_digits, normalise_digits

ALGORITHMS = (EncryptionAlgorithm.STA, EncryptionAlgorithm.MISTY1)
REFUSALS = {TokenResult.FORMAT_ERROR, TokenResult.FUNCTION_ERROR, TokenResult.CRC_ERROR}


def check_decode(reader: ByteReader) -> set[str]:
    """Read one token in one of three shapes: any text, any number of 68 bits, or one whose CRC holds."""
    ea = reader.pick(ALGORITHMS)
    key = DecoderKey(reader.raw(ea.key_bytes))
    shape = reader.pick(("text", "number", "authentic"))
    if shape == "text":
        digits = reader.text()
        check_typed(digits)
    elif shape == "number":
        digits = f"{reader.number(9) >> 4:020d}"
    else:
        token_class, payload = reader.number(1) & 3, reader.number(6)
        block = data_block(token_class, payload)
        digits = to_digits(
            transpose(token_class, block if token_class == 1 else encrypt_block(key, ea, block))
        )
    try:
        token = decode(digits, key, ea)
    except TokenRejected as refusal:
        assert refusal.result in REFUSALS
        if shape == "authentic":
            assert token_class == 3, "a token whose CRC holds is refused only for its class"
        return {f"decode {shape} {refusal.result}"}
    check_token(token, digits, key, ea)
    return {f"decode {shape} {ea.name} class {token.token_class} subclass {token.subclass}"}


def check_typed(text: str) -> None:
    """What a person typed is refused with a reason or becomes 20 digits, whose printed form reads back."""
    try:
        digits = normalise_digits(text)
    except InvalidTokenText as refusal:
        assert refusal.reason in {"letter", "too_short", "too_long"}
        return
    assert len(digits) == 20
    assert digits.isascii()
    assert digits.isdigit()
    assert normalise_digits(group_digits(digits)) == digits


def check_token(token: DecodedToken, digits: str, key: DecoderKey, ea: EncryptionAlgorithm) -> None:
    """An authentic token has all its fields within their bits, and its fields make the same digits again."""
    assert int(digits) <= MAX_TOKEN
    assert class_of(digits) == token.token_class in {0, 1, 2}
    assert 0 <= token.subclass <= 15
    assert 0 <= token.nibble <= 15
    assert 0 <= token.value <= 0xFFFF
    assert (token.tid is not None) == token.has_tid
    if token.tid is not None:
        check_tid(token.tid)
    assert -MAX_CURRENCY <= token.amount <= MAX_CURRENCY
    if not token.is_currency:
        assert 0 <= token.amount <= MAX_AMOUNT
    block = data_block(token.token_class, token.subclass << 44 | token.payload44)
    assert block & 0xFFFF == token.crc
    if token.token_class == 1:
        assert decode_clear(digits) == token
    else:
        block = encrypt_block(key, ea, block)
    assert to_digits(transpose(token.token_class, block)) == digits
