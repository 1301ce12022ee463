"""How fast tokens are made, beside a bare HMAC and beside the openpaygo package: `make bench WHAT=token`."""

from __future__ import annotations

import hmac
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
from openpaygo.token_encode import OpenPAYGOTokenEncoder

from tests.benchmarks.bench import Case, report
from token_engine.acceptance import MeterTokenState, enter
from token_engine.batch import credit_tokens, digits_of
from token_engine.decode import decode
from token_engine.decoder_key import VendingKey, derive, dkga04_message
from token_engine.encode import credit_token
from token_engine.identifiers import (
    BaseDate,
    EncryptionAlgorithm,
    KeyGeneration,
    KeyType,
    MeterKeyIdentity,
    MeterPan,
    luhn_digit,
)
from token_engine.key_material import VendingKeyMaterial
from token_engine.openpaygo import PaygoDevice, PaygoKey, PaygoType, issue, starting_code_of
from token_engine.openpaygo_batch import issue_all

METERS = 500  # enough that no cache of one meter's answers could help
BATCH = 50_000  # a small utility's monthly free units
DEVICES = 1_000
FAR_COUNT = 500
VENDING_KEY = VendingKey(
    VendingKeyMaterial.from_hex("abababababababab949494949494949401234567"), KeyType.DUTK, BaseDate.Y2014
)
ANCHOR = "hmac.digest of 49 ready bytes"


def meters(ea: EncryptionAlgorithm) -> list[MeterKeyIdentity]:
    first = MeterKeyIdentity(
        pan="600727000000000009",
        sgc="201457",
        ti=1,
        krn=1,
        kt=KeyType.DUTK,
        ken=255,
        ea=ea,
        dkga=KeyGeneration.DKGA04,
        base_date=BaseDate.Y2014,
    )
    serials = (f"01{serial:08d}" for serial in range(METERS))
    return [replace(first, pan=str(MeterPan.of("600727", serial + luhn_digit(serial)))) for serial in serials]


def whole_token(ea: EncryptionAlgorithm) -> Callable[[], object]:
    """Derivation and token, from a meter's identity to the 20 digits, a different meter each time."""
    fleet = cycle(meters(ea))

    def work() -> str:
        meter = next(fleet)
        return credit_token(derive(VENDING_KEY, meter), ea, subclass=0, amount=1234, tid=6_780_000, rnd=5)

    return work


def hmac_anchor() -> Callable[[], object]:
    key = VENDING_KEY.material.reveal()
    message = dkga04_message(meters(EncryptionAlgorithm.STA)[0])
    assert len(message) == 49
    return lambda: hmac.digest(key, message, "sha256")


def sts_cases() -> list[Case]:
    sta = EncryptionAlgorithm.STA
    meter = meters(sta)[0]
    key = derive(VENDING_KEY, meter)
    token = credit_token(key, sta, subclass=0, amount=1234, tid=6_780_000, rnd=5)
    state = MeterTokenState(meter, key)
    now = meter.base_date.instant_of(6_780_000)
    return [
        Case(ANCHOR, hmac_anchor()),
        Case("EA07 token with DKGA04", whole_token(sta), anchor=ANCHOR, goal=0.09),
        Case("EA11 token with DKGA04", whole_token(EncryptionAlgorithm.MISTY1), anchor=ANCHOR, goal=0.05),
        Case("decoding an EA07 token, key ready", lambda: decode(token, key, sta), anchor=ANCHOR),
        Case("a meter taking an EA07 token", lambda: enter(state, token, now), anchor=ANCHOR),
        *batch_cases(),
    ]


def batch_cases() -> list[Case]:
    seeded = np.random.default_rng(62055)
    keys = seeded.integers(0, 1 << 64, BATCH, dtype=np.uint64)
    amounts = seeded.integers(1, 20_000, BATCH)
    tids = seeded.integers(0, 1 << 24, BATCH)
    rnds = seeded.integers(0, 16, BATCH)

    def integers() -> tuple[np.ndarray, np.ndarray]:
        return credit_tokens(keys, subclass=0, amounts=amounts, tids=tids, rnds=rnds)

    return [
        Case("EA07 batch, keys ready, as integers", integers, BATCH, ANCHOR, 3.0),
        Case("EA07 batch, keys ready, as text", lambda: digits_of(*integers()), BATCH, ANCHOR, 1.2),
    ]


def paygo_cases() -> list[Case]:
    """The package is given its starting code as ours is, so that neither makes it again for each token."""
    seeded = random.Random(23)
    keys = [PaygoKey(seeded.randbytes(16)) for _ in range(DEVICES)]
    devices = [PaygoDevice(key, starting_code_of(key)) for key in keys]
    theirs = [(key.reveal().hex(), device.starting_code) for key, device in zip(keys, devices, strict=True)]
    for count in (0, 1, FAR_COUNT):
        wanted = [package_token(*one, count) for one in theirs[:20]]
        assert [issue(one, PaygoType.ADD_TIME, 7, count).digits for one in devices[:20]] == wanted
        assert [token.digits for token in batch(devices[:20], count)] == wanted
    cases = []
    for count in (1, FAR_COUNT):
        name = f"openpaygo package, count {count}"
        cases.append(Case(name, over(theirs, lambda one, at=count: package_token(*one, at))))
        cases.append(
            Case(
                f"OpenPAYGO one by one, count {count}",
                over(devices, lambda one, at=count: issue(one, PaygoType.ADD_TIME, 7, at)),
                anchor=name,
                goal=1.0,
            )
        )
    cases.append(
        Case(
            f"OpenPAYGO batch of {DEVICES} devices, count {FAR_COUNT}",
            lambda: batch(devices, FAR_COUNT),
            DEVICES,
            f"openpaygo package, count {FAR_COUNT}",
            20.0,
        )
    )
    return cases


def package_token(key: str, starting_code: int, count: int) -> str:
    return OpenPAYGOTokenEncoder.generate_token(key, count, 7, starting_code=starting_code)[1]


def batch(devices: Sequence[PaygoDevice], count: int) -> list:
    return issue_all(devices, PaygoType.ADD_TIME, [7] * len(devices), [count] * len(devices))


def over(rows: Sequence, work: Callable) -> Callable[[], object]:
    """One row after the other, round and round."""
    turn = cycle(rows)
    return lambda: work(next(turn))


if __name__ == "__main__":
    sys.exit(report("token", [*sts_cases(), *paygo_cases()]))
