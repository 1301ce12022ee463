"""Real meters, keys and tokens for the tests of this room."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from firmware_sim.meter_state import key_identity, new_meter
from firmware_sim.town import build_town
from token_engine.decoder_key import VendingKey, derive
from token_engine.encode import credit_token
from token_engine.identifiers import BaseDate, KeyType
from token_engine.key_material import VendingKeyMaterial

TOWN = build_town()
NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
VENDING_KEYS = {
    (sgc, 1, kt): VendingKey(VendingKeyMaterial(bytes([n]) * 20), kt, BaseDate.Y2014)
    for n, sgc in enumerate(("201457", "201458"), 1)
    for kt in (KeyType.DDTK, KeyType.DUTK)
}


def find(commodity="electricity", link="mqtt", ea=None):
    return next(
        m for m in TOWN.installed if m.commodity == commodity and m.link == link and ea in (None, m.ea)
    )


def key_of(meter):
    return derive(VENDING_KEYS[meter.sgc, 1, KeyType(meter.kt)], key_identity(meter))


def fresh(meter, **changes):
    from dataclasses import replace

    return replace(new_meter(meter, key_of(meter)), **changes)


def token(meter, tenths=125, minutes=0, subclass=None):
    identity = key_identity(meter)
    tid = identity.base_date.tid_at(NOW + timedelta(minutes=minutes))
    if subclass is None:
        subclass = 0 if meter.commodity == "electricity" else 1
    return credit_token(key_of(meter), identity.ea, subclass=subclass, amount=tenths, tid=tid, rnd=5)
