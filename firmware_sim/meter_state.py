"""All that one simulated meter remembers, as a frozen value, and its JSON form for the state file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from firmware_sim.town import TownMeter
from token_engine.acceptance import MeterCapabilities, MeterTokenState
from token_engine.decode import KEY_CHANGE_SUBCLASSES
from token_engine.encode import CLEAR_CREDIT, CLEAR_TAMPER, SET_POWER_LIMIT
from token_engine.identifiers import BaseDate, EncryptionAlgorithm, KeyGeneration, KeyType, MeterKeyIdentity
from token_engine.key_material import DecoderKey

# DLMS disconnect control states.
DISCONNECTED, CONNECTED, READY = 0, 1, 2
RELAY_REASONS = ("none", "no_credit", "order", "tamper", "overload")
# One tenth of a kWh or m3, the token's unit, in the register's unit Wh or mL.
PER_TENTH = {"electricity": 100, "water": 100_000}
LOW_CREDIT = {"electricity": (10_000, 3_000), "water": (2_000_000, 500_000)}
COMMAND_MEMORY = 8  # what the map shows: run_id_1 to run_id_8
ATTEMPT_LOG = 8  # what the map shows: log_1 to log_8
ACCEPTED_LOG = 200  # four full TID stores: a test that counts tokens never outruns it
RUN_LOG = 400


@dataclass(frozen=True, slots=True)
class Attempt:
    """One token tried: TokenResult name, carrier keypad or remote, tenths that it added."""

    number: int
    result: str
    carrier: str
    tid: int | None
    at_ms: int
    amount_tenths: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The stored result of a command id; `result` is a TokenResult name, or why an order did not work."""

    command: int
    kind: str
    done: bool
    result: str
    tid: int | None
    credit: int
    relay: int
    load: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class MeterState:
    """A meter; credit and counter in Wh or mL, load in W or mL/h, times in UTC epoch milliseconds.

    `supply` says whether its network node is alive; a water meter lives on a battery and only its flow stops.
    """

    drn: str
    commodity: str
    token: MeterTokenState
    credit: int
    counter: int
    supply: bool = True
    relay: int = CONNECTED
    reason: str = "none"
    relay_changed_ms: int = 0
    relay_stuck: bool = False
    load: int = 0
    ordered_open: bool = False
    hand_closes: bool = True  # this model knows ready-for-reconnection: a remote close order ends there
    hand_awaited: bool = False
    tamper: bool = False
    tripped_until_ms: int = 0
    power_limit_w: int = 0  # mL/h for water
    low_1: int | None = None  # low-credit marks in Wh or mL; None: as the maker set them
    low_2: int | None = None
    boot: int = 1
    clock_offset_ms: int = 0
    clock_ok: bool = True
    reverse: int = 0  # Wh or mL that flowed back, cumulative
    token_count: int = 0
    attempts: tuple[Attempt, ...] = ()  # newest first
    accepted: tuple[Attempt, ...] = ()  # oldest first
    answers: tuple[Answer, ...] = ()  # newest first
    commands_run: tuple[int, ...] = ()  # oldest first

    @property
    def powered(self) -> bool:
        """True when the meter itself is alive."""
        return self.supply or self.commodity == "water"

    @property
    def low_marks(self) -> tuple[int, int]:
        """The two low-credit marks in Wh or mL."""
        if self.low_1 is None or self.low_2 is None:
            return LOW_CREDIT[self.commodity]
        return self.low_1, self.low_2

    def clock_ms(self, now_ms: int) -> int:
        """What the meter's own clock shows."""
        return max(now_ms + self.clock_offset_ms, 0)

    def lock_ms(self, now_ms: int) -> int:
        """How long the keypad stays locked, 0 when it is open."""
        if self.token.locked_until is None:
            return 0
        return max(int(self.token.locked_until.timestamp() * 1000) - now_ms, 0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the decoder key in the clear: only for the state file of a simulated meter."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {
            "token": self.token.to_dict(),
            "attempts": [asdict(one) for one in self.attempts],
            "accepted": [asdict(one) for one in self.accepted],
            "answers": [asdict(one) for one in self.answers],
            "commands_run": list(self.commands_run),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MeterState:
        """Read what to_dict wrote. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            **{name: data[name] for name in _PLAIN if name in data},
            token=MeterTokenState.from_dict(data["token"]),
            attempts=tuple(Attempt(**one) for one in data["attempts"]),
            accepted=tuple(Attempt(**one) for one in data["accepted"]),
            answers=tuple(Answer(**one) for one in data["answers"]),
            commands_run=tuple(data["commands_run"]),
        )


_PLAIN = tuple(
    field.name
    for field in fields(MeterState)
    if field.name not in {"token", "attempts", "accepted", "answers", "commands_run"}
)


def key_identity(meter: TownMeter) -> MeterKeyIdentity:
    """Everything that decides this meter's decoder key."""
    return MeterKeyIdentity(
        pan=meter.pan,
        sgc=meter.sgc,
        ti=meter.ti,
        krn=meter.krn,
        kt=KeyType(meter.kt),
        ken=meter.ken,
        ea=EncryptionAlgorithm(int(meter.ea)),
        dkga=KeyGeneration(int(meter.dkga)),
        base_date=BaseDate(f"{meter.base_date % 100:02d}"),
    )


def new_meter(meter: TownMeter, decoder_key: DecoderKey) -> MeterState:
    """A meter as it leaves its maker, with the credit and counter that the town gives it."""
    electric = meter.commodity == "electricity"
    capabilities = MeterCapabilities(
        credit_subclasses=frozenset({0 if electric else 1}),
        management_subclasses=frozenset(
            {CLEAR_CREDIT, CLEAR_TAMPER} | ({SET_POWER_LIMIT} if electric else set()) | KEY_CHANGE_SUBCLASSES
        ),
    )
    state = MeterState(
        drn=meter.drn,
        commodity=meter.commodity,
        token=MeterTokenState(key_identity(meter), decoder_key, capabilities),
        credit=meter.initial_credit,
        counter=meter.initial_counter,
    )
    return state if state.credit > 0 else replace(state, relay=DISCONNECTED, reason="no_credit")
