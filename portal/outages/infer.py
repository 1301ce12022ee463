"""Which part of the network is without supply, judged from what its meters say and fall silent about.

Rules of field.md 4.2: enough children without supply predict their device, no child proven alive, two predicted
siblings climb to their parent, short interruptions are momentary, and a silent gateway is no outage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from math import ceil
from typing import Final

# Clocks of two devices under one feeder differ by less than this; a sign of life must lie clearly after the cut.
LIFE_GRACE: Final = timedelta(seconds=2)


class Evidence(StrEnum):
    """Why a meter is held to be without supply, strongest first."""

    LAST_GASP = "last_gasp"
    SILENCE = "silence"
    CONTACT = "contact"
    INFERRED = "inferred"


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of the inference (field.md 4.2 gives these start values)."""

    debounce: timedelta = timedelta(seconds=60)
    k_min: int = 2
    p: Fraction = Fraction(3, 10)
    alive_window: timedelta = timedelta(minutes=15)
    momentary: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class MeterView:
    """What is known of one meter: where it hangs, since when it seems out, when it last proved supply.

    `line` names what carries its words (a site's bus); None when it speaks for itself or not at all. `is_silent`
    says that it does not answer on that line, which for a water meter is no word about supply.
    """

    meter_id: int
    node_id: int
    speaks: bool
    line: str | None = None
    out_at: datetime | None = None
    evidence: Evidence | None = None
    alive_at: datetime | None = None
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class AffectedMeter:
    """A meter within a predicted outage, with its own start."""

    meter_id: int
    out_at: datetime
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Prediction:
    """A network element held to be without supply, the highest that the evidence allows."""

    node_id: int
    started_at: datetime
    source: Evidence
    meters: tuple[AffectedMeter, ...]


@dataclass(frozen=True, slots=True)
class Inference:
    """The predicted outages, and the lines that are silent though their meters may well have supply."""

    predictions: tuple[Prediction, ...]
    comms_loss: frozenset[str]


def infer(
    parents: Mapping[int, int | None],
    meters: Sequence[MeterView],
    *,
    now: datetime,
    rules: Rules,
    lines_down: frozenset[str] = frozenset(),
) -> Inference:
    """Judge the whole network at `now`; `parents` maps each node to its parent, None at the top."""
    lost = lines_down | _silent_lines(meters)
    out = {
        meter.meter_id: meter
        for meter in meters
        if is_out(meter) and not (meter.evidence is Evidence.SILENCE and meter.line in lost)
    }
    tree = _Tree(parents, meters)
    predicted: dict[int, bool] = {}
    for node in tree.leaves_first():
        children = [child for child in tree.children[node] if predicted.get(child)]
        own = tree.meters_at[node]
        signals = [out[meter.meter_id] for meter in own if meter.meter_id in out]
        voices = sum(1 for meter in own if meter.speaks or meter.meter_id in out)
        enough = _enough(len(signals), voices, rules) and _mature(signals, now, rules)
        predicted[node] = (enough or len(children) >= 2) and not _alive_below(tree, node, out, now, rules)
    tops = [
        node for node, yes in predicted.items() if yes and not tree.has_predicted_ancestor(node, predicted)
    ]
    predictions = tuple(_prediction(tree, node, out) for node in sorted(tops))
    return Inference(predictions, lost)


def is_out(meter: MeterView) -> bool:
    """True while nothing newer than its own signal proves supply."""
    if meter.out_at is None or meter.evidence is None:
        return False
    return meter.alive_at is None or meter.alive_at <= meter.out_at


def is_momentary(started_at: datetime, restored_at: datetime, rules: Rules) -> bool:
    """True for an interruption that counts as momentary, not sustained (IEEE 1366: up to 5 minutes)."""
    return restored_at - started_at <= rules.momentary


def may_close(restored: int, speaking: int) -> bool:
    """True when all, or at least 95 %, of the meters that can speak were seen alive (field.md 4.2)."""
    return speaking > 0 and 100 * restored >= 95 * speaking


class _Tree:
    """The network with its meters."""

    def __init__(self, parents: Mapping[int, int | None], meters: Iterable[MeterView]) -> None:
        self.parents = parents
        self.children: dict[int, list[int]] = defaultdict(list)
        self.meters_at: dict[int, list[MeterView]] = defaultdict(list)
        for node, parent in parents.items():
            if parent is not None:
                self.children[parent].append(node)
        for meter in meters:
            self.meters_at[meter.node_id].append(meter)

    def leaves_first(self) -> list[int]:
        return sorted(self.parents, key=lambda node: (-self._depth(node), node))

    def _depth(self, node: int) -> int:
        depth = 0
        parent = self.parents.get(node)
        while parent is not None and depth < len(self.parents):  # a cycle by mistake ends here
            depth += 1
            parent = self.parents.get(parent)
        return depth

    def below(self, node: int) -> list[MeterView]:
        found: list[MeterView] = []
        waiting, seen = [node], set[int]()
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                found += self.meters_at[current]
                waiting += self.children[current]
        return found

    def has_predicted_ancestor(self, node: int, predicted: Mapping[int, bool]) -> bool:
        parent, steps = self.parents.get(node), 0
        while parent is not None and steps < len(self.parents):
            if predicted.get(parent):
                return True
            parent, steps = self.parents.get(parent), steps + 1
        return False


def _silent_lines(meters: Sequence[MeterView]) -> frozenset[str]:
    """Lines all of whose meters fell silent, under several devices, where nobody told of lost power."""
    by_line: dict[str, list[MeterView]] = defaultdict(list)
    told: set[int] = set()
    for meter in meters:
        if meter.line is not None:
            by_line[meter.line].append(meter)
        if is_out(meter) and meter.evidence in {Evidence.LAST_GASP, Evidence.CONTACT}:
            told.add(meter.node_id)
    lost = set()
    for line, members in by_line.items():
        nodes = {meter.node_id for meter in members}
        if len(nodes) >= 2 and all(is_out(m) or m.is_silent for m in members) and not nodes & told:
            lost.add(line)
    return frozenset(lost)


def _enough(signals: int, voices: int, rules: Rules) -> bool:
    return signals >= max(rules.k_min, ceil(rules.p * voices))


def _mature(signals: Sequence[MeterView], now: datetime, rules: Rules) -> bool:
    earliest = min(meter.out_at for meter in signals if meter.out_at is not None)
    return now - earliest >= rules.debounce


def _alive_below(tree: _Tree, node: int, out: Mapping[int, MeterView], now: datetime, rules: Rules) -> bool:
    """True when a meter under `node` proved supply after the signals began; it vetoes its ancestors."""
    below = tree.below(node)
    signals = [out[meter.meter_id] for meter in below if meter.meter_id in out]
    starts = [meter.out_at for meter in signals if meter.out_at is not None]
    if not starts:
        return False
    only_contacts = all(meter.evidence is Evidence.CONTACT for meter in signals)
    # People call minutes after the light went out, so any life within the window speaks against their words
    # alone; machines tell the instant, so only life after it does.
    grace = min(LIFE_GRACE, rules.debounce)
    since = now - rules.alive_window if only_contacts else max(min(starts) + grace, now - rules.alive_window)
    return any(
        meter.alive_at is not None and meter.alive_at >= since and meter.meter_id not in out
        for meter in below
    )


def _prediction(tree: _Tree, node: int, out: Mapping[int, MeterView]) -> Prediction:
    below = tree.below(node)
    told = [
        AffectedMeter(found.meter_id, found.out_at, found.evidence)
        for meter in below
        if (found := out.get(meter.meter_id)) and found.out_at is not None and found.evidence is not None
    ]
    first = min(told, key=lambda meter: (meter.out_at, meter.meter_id))
    guessed = [
        AffectedMeter(meter.meter_id, first.out_at, Evidence.INFERRED)
        for meter in below
        if meter.meter_id not in out
        and (meter.alive_at is None or meter.alive_at <= first.out_at + LIFE_GRACE)
    ]
    meters = sorted((*told, *guessed), key=lambda meter: meter.meter_id)
    return Prediction(node, first.out_at, first.evidence, tuple(meters))
