"""Meters and keys that many token tests share; the keys are those of the published test vectors."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from token_engine.decoder_key import VendingKey, derive
from token_engine.identifiers import (
    BaseDate,
    EncryptionAlgorithm,
    KeyGeneration,
    KeyType,
    MeterKeyIdentity,
)
from token_engine.key_material import DecoderKey, VendingKeyMaterial
from token_engine.software_vault import SoftwareVault

VK20 = "abababababababab949494949494949401234567"
VK8 = "abababababababab"
VECTORS = Path(__file__).parent.parent / "vectors"


@pytest.fixture(scope="session")
def vectors() -> dict[str, list[dict[str, Any]]]:
    return {name: json.loads((VECTORS / f"{name}.json").read_text("utf-8")) for name in ("sts", "openpaygo")}


@pytest.fixture(scope="session")
def meter() -> MeterKeyIdentity:
    return MeterKeyIdentity(
        pan="600727000000000009",
        sgc="201457",
        ti=1,
        krn=1,
        kt=KeyType.DUTK,
        ken=255,
        ea=EncryptionAlgorithm.STA,
        dkga=KeyGeneration.DKGA04,
        base_date=BaseDate.Y2014,
    )


@pytest.fixture(scope="session")
def misty_meter(meter: MeterKeyIdentity) -> MeterKeyIdentity:
    return dataclasses.replace(meter, ea=EncryptionAlgorithm.MISTY1)


def vending_key(
    kt: KeyType = KeyType.DUTK, base_date: BaseDate = BaseDate.Y2014, text: str = VK20
) -> VendingKey:
    return VendingKey(VendingKeyMaterial.from_hex(text), kt, base_date)


@pytest.fixture(scope="session")
def vending_keys() -> dict[tuple[str, int, KeyType], VendingKey]:
    """Supply group 201457: revision 1 and 2 in 2014, 3 in 2035, and default keys; 203557 revision 6 in 2035."""
    return {
        ("201457", 1, KeyType.DUTK): vending_key(),
        ("201457", 1, KeyType.DDTK): vending_key(KeyType.DDTK, text="11" * 20),
        ("201457", 2, KeyType.DUTK): vending_key(text="22" * 20),
        ("201457", 3, KeyType.DUTK): vending_key(base_date=BaseDate.Y2035, text="33" * 20),
        ("203557", 6, KeyType.DUTK): vending_key(base_date=BaseDate.Y2035),
        ("123456", 1, KeyType.DUTK): vending_key(base_date=BaseDate.Y1993, text=VK8),
    }


@pytest.fixture
def vault(vending_keys: dict[tuple[str, int, KeyType], VendingKey]) -> SoftwareVault:
    return SoftwareVault(vending_keys)


@pytest.fixture(scope="session")
def key_for(
    vending_keys: dict[tuple[str, int, KeyType], VendingKey],
) -> Callable[[MeterKeyIdentity], DecoderKey]:
    return lambda meter: derive(vending_keys[meter.sgc, meter.krn, meter.kt], meter)
