"""What an accepted token makes a meter do, one small fact for each kind of token (sts.md 3)."""

from dataclasses import dataclass

from token_engine.identifiers import MeterKeyIdentity


@dataclass(frozen=True, slots=True)
class CreditAdded:
    """Credit of `amount`: tenths of kWh, m3 or minute (subclass 0-3), 1e-5 of the currency unit (4-7)."""

    subclass: int
    amount: int


@dataclass(frozen=True, slots=True)
class CreditCleared:
    """One register emptied (0 electricity, 1 water, 2 gas, 3 time, 4-7 in currency), or all when None."""

    register: int | None


@dataclass(frozen=True, slots=True)
class TamperCleared:
    """The tamper condition is cleared."""


@dataclass(frozen=True, slots=True)
class PowerLimitSet:
    """The maximum power limit in watts."""

    watts: int


@dataclass(frozen=True, slots=True)
class PhaseUnbalanceLimitSet:
    """The maximum phase power unbalance in watts."""

    watts: int


@dataclass(frozen=True, slots=True)
class TariffRateSet:
    """A raw tariff rate; reserved in practice (doubtful)."""

    value: int


@dataclass(frozen=True, slots=True)
class WaterFactorSet:
    """A raw water meter factor; reserved in practice (doubtful)."""

    value: int


@dataclass(frozen=True, slots=True)
class FlagSet:
    """A flag of STS 202-5 set or cleared."""

    flag: int
    on: bool


@dataclass(frozen=True, slots=True)
class ExtendedSet:
    """Another item of STS 202-5: its index and raw 10-bit value."""

    index: int
    value: int


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """The meter now has this identity and its key; the TID store was emptied or kept."""

    identity: MeterKeyIdentity
    tids_cleared: bool


@dataclass(frozen=True, slots=True)
class TestRequested:
    """A test or display was asked for: control bits, or the field of an extended read (subclass 2)."""

    __test__ = False  # its name looks like a test class to pytest

    subclass: int
    control: int
    mfr_code: int


TokenEffect = (
    CreditAdded
    | CreditCleared
    | TamperCleared
    | PowerLimitSet
    | PhaseUnbalanceLimitSet
    | TariffRateSet
    | WaterFactorSet
    | FlagSet
    | ExtendedSet
    | KeyChanged
    | TestRequested
)
