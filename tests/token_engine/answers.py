"""Every answer of the engine as a value: a refusal as its name and words, even when a module does not load.

A mutant then dies by an assertion, and not by whatever its error happens to be. Beside it the plain rules, bit by
bit and with nothing of the engine.
"""

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from importlib import import_module
from types import SimpleNamespace
from typing import Any

MODULES = ("cipher", "fields", "encode", "decode", "identifiers", "key_material", "token_result")


def engine() -> SimpleNamespace:
    return SimpleNamespace(**{name: import_module(f"token_engine.{name}") for name in MODULES})


def answer(call: Callable[[SimpleNamespace], Any]) -> Any:
    """What the call gives, or the refusal as text."""
    try:
        return call(engine())
    except Exception as refusal:
        return f"{type(refusal).__name__}: {refusal}"


def key_of(e: SimpleNamespace, text: str = "87f3ecbb2e46b48f") -> Any:
    return e.key_material.DecoderKey.from_hex(text)


def sta(e: SimpleNamespace) -> Any:
    return e.identifiers.EncryptionAlgorithm.STA


def misty(e: SimpleNamespace) -> Any:
    return e.identifiers.EncryptionAlgorithm.MISTY1


def identity(e: SimpleNamespace, **changes: Any) -> Any:
    plain = {"pan": "600727000000000009", "sgc": "201457", "ti": 1, "krn": 1, "kt": 2, "ken": 255}
    return e.identifiers.MeterKeyIdentity(**(plain | {"ea": 7, "dkga": 4, "base_date": "14"} | changes))


def changed(value: Any, name: str) -> str:
    try:
        setattr(value, name, 0)
    except FrozenInstanceError:
        return "FrozenInstanceError"
    return "changed"


def plain_offset(exponent: int) -> int:
    return sum(16384 * 10**n for n in range(exponent))


def plain_crc(data: bytes) -> int:
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            carry, register = register & 1, register >> 1
            register ^= 0xA001 * carry
    return (register & 0xFF) << 8 | register >> 8


def data_of(token_class: int, payload: int) -> int:
    """The 64-bit data block: payload and its CRC, with nothing of the engine."""
    data = (token_class << 48 | payload).to_bytes(7, "big")
    money = token_class == 0 and payload >> 44 in {4, 5, 6, 7}
    return payload << 16 | plain_crc(data + bytes([1]) * money)


def sealed(token_class: int, payload: int) -> str:
    return f"{token_class} {data_of(token_class, payload):016x}"
