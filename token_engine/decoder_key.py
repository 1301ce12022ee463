"""From a vending key to the key inside one meter (decoder key generation algorithms, sts.md 6)."""

import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes

from token_engine.errors import InvalidKey
from token_engine.identifiers import BaseDate, KeyGeneration, KeyType, MeterKeyIdentity, MeterPan
from token_engine.key_material import DecoderKey, VendingKeyMaterial

_PAN_DIGITS = 16
_DKGA04_MESSAGE = "\x04\x0204\x02%s\x02%02d\x02%02d\x00\x04\x06%s\x01%d\x01%d\x12%s\x00\x00\x00%c"
_SIZES = {KeyGeneration.DKGA02: 8, KeyGeneration.DKGA03: 16, KeyGeneration.DKGA04: 20}


@dataclass(frozen=True, slots=True)
class VendingKey:
    """A supply group's key of one revision and type; its base date belongs to the key (sts.md 5).

    Raises InvalidKey for a DITK, which the manufacturer makes and no vending key does.
    """

    material: VendingKeyMaterial = field(repr=False)
    kt: KeyType
    base_date: BaseDate

    def __post_init__(self) -> None:
        if self.kt is KeyType.DITK:
            raise InvalidKey("a DITK is made by the manufacturer: there is no vending key for it")

    @property
    def check_value(self) -> str:
        """The key check value, safe to show."""
        return self.material.check_value


def pan_block(pan: str, kt: KeyType) -> bytes:
    """The 8-byte PAN block of DKGA01-03: last digits of the IIN and the DRN, 16 nibbles.

    A common key (KT 3) serves every meter of the group, so its DRN digits are zeros.
    """
    meter = MeterPan(pan)
    drn = "0" * len(meter.drn) if kt is KeyType.DCTK else str(meter.drn)
    return bytes.fromhex((meter.iin + drn)[-_PAN_DIGITS:])


def control_block(meter: MeterKeyIdentity) -> bytes:
    """The 8-byte CONTROL block: KT, SGC, TI, KRN and FFFFFF as nibbles."""
    return bytes.fromhex(f"{meter.kt.value}{meter.sgc}{meter.ti:02d}{meter.krn}FFFFFF")


def dkga04_message(meter: MeterKeyIdentity) -> bytes:
    """The 49 bytes that DKGA04 signs: label elements, context elements, key length in bits."""
    # Enums are formatted as the text and numbers that they are: asking each for its `value` costs more.
    fields = (
        meter.base_date,
        meter.ea,
        meter.ti,
        meter.sgc,
        meter.kt,
        meter.krn,
        meter.pan,
        meter.ea.key_bytes * 8,
    )
    return (_DKGA04_MESSAGE % fields).encode("latin-1")


def derive(vending_key: VendingKey, meter: MeterKeyIdentity) -> DecoderKey:
    """The decoder key of `meter`. For the vault and for whoever makes meters, nobody else.

    DKGA02 and 04 are pinned by vectors; DKGA03 follows one reading (doubtful) and has none; DKGA01 has no
    agreed source. Raises InvalidKey for those that cannot be made.
    """
    _check(vending_key, meter)
    if meter.dkga is KeyGeneration.DKGA04:
        digest = hmac.digest(vending_key.material.reveal(), dkga04_message(meter), "sha256")
        return DecoderKey(digest[: meter.ea.key_bytes])
    mixed = _xor(pan_block(meter.pan, meter.kt), control_block(meter))
    secret = vending_key.material.reveal()
    if meter.dkga is KeyGeneration.DKGA02:
        # Parity bits do not matter to DES but do enter the last xor.
        return DecoderKey(_xor(_triple_des(secret * 3, mixed), mixed, secret))
    return DecoderKey(_xor(_triple_des(secret + secret[:8], mixed), mixed))


def _check(vending_key: VendingKey, meter: MeterKeyIdentity) -> None:
    if meter.dkga is KeyGeneration.DKGA01:
        raise InvalidKey("DKGA01 is a legacy rule without an agreed public source, and is not made here")
    size = _SIZES[meter.dkga]
    if len(vending_key.material.reveal()) != size:
        raise InvalidKey(f"{meter.dkga.name} takes a vending key of {size} bytes")
    if vending_key.kt is not meter.kt:
        raise InvalidKey(f"a vending key for {vending_key.kt.name} does not make a {meter.kt.name}")
    if vending_key.base_date is not meter.base_date:
        raise InvalidKey(
            f"the vending key counts from {vending_key.base_date.name}, the meter from {meter.base_date.name}"
        )
    if meter.kt is KeyType.DCTK and meter.dkga is KeyGeneration.DKGA04:
        raise InvalidKey("a common key (DCTK) under DKGA04 has no agreed public source")


def _triple_des(key: bytes, block: bytes) -> bytes:
    # One DES is triple DES with the same key three times; the library has no single one. ECB is what the rule
    # says, on exactly one block.
    return Cipher(TripleDES(key), modes.ECB()).encryptor().update(block)  # noqa: S305


def _xor(*parts: bytes) -> bytes:
    out = 0
    for part in parts:
        out ^= int.from_bytes(part, "big")
    return out.to_bytes(8, "big")
