"""What a finding in the readings is called, what it means and what a person does about it: English msgids by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portal.i18n import msg


@dataclass(frozen=True, slots=True)
class FindingWords:
    """Title, tone of its badge, what it means, and what to do."""

    title: str
    tone: str
    meaning: str
    advice: str


WORDS: Final[dict[str, FindingWords]] = {
    "counter": FindingWords(
        msg("Counter in doubt"),
        "bad",
        msg("The counter fell, or rose faster than can be. It is kept apart and nothing is built upon it."),
        msg(
            "Compare with the display. If the meter was replaced or its counter began again, believe it from there;"
            " otherwise wait: a glitch ends by itself."
        ),
    ),
    "gap": FindingWords(
        msg("No readings"),
        "warn",
        msg("Two readings or more that were due did not come."),
        msg("Look at the link and the supply. Readings that the meter kept fill the gap when it is back."),
    ),
    "flat": FindingWords(
        msg("Counter stands still"),
        "warn",
        msg("The counter does not move, although something else says that there was use."),
        msg("Send somebody: the meter may be bypassed, or its counter stuck."),
    ),
    "clock": FindingWords(
        msg("Clock is wrong"),
        "warn",
        msg("The meter's clock is off by more than two minutes."),
        msg("Set the clock. Times of use and friendly hours depend on it."),
    ),
    "stranger": FindingWords(
        msg("Another meter answers"),
        "bad",
        msg("At the address of this meter another number answers. Nothing that it says is booked."),
        msg("Compare the number on the plate. If the meter was replaced, record the replacement."),
    ),
    "leak": FindingWords(
        msg("Water never stops"),
        "warn",
        msg("For 48 hours there was not one interval without flow. The customer was told."),
        msg(
            "Ask the customer to close all taps and look at the meter. If the use is normal here, close with that."
        ),
    ),
    "reverse": FindingWords(
        msg("Flows back"),
        "warn",
        msg("Energy or water flows back into the network."),
        msg("Look for solar panels, swapped wires or a check valve that does not hold."),
    ),
    "tamper": FindingWords(
        msg("Tamper alarm"),
        "bad",
        msg("Somebody opened the meter."),
        msg("Send somebody. The meter opens its relay and waits for a token that clears the alarm."),
    ),
    "conflict": FindingWords(
        msg("Two values for one reading"),
        "warn",
        msg("The same reading was told twice with different values. The first one counts until you decide."),
        msg("Choose the value that is right. Both are kept."),
    ),
}
OUTCOMES: Final = {
    "over": msg("Over by itself"),
    "explained": msg("Explained"),
    "rebased": msg("Believed from a new beginning"),
    "decided": msg("Decided"),
}
CAUSES: Final = {
    "reset": msg("The counter began again"),
    "replaced": msg("The meter or its register was replaced"),
    "repaired": msg("The meter was repaired"),
}
CHANNEL_WORDS: Final = {
    "counter": msg("Counter"),
    "credit": msg("Credit"),
    "load": msg("Drawn now"),
    "relay": msg("Switch"),
    "reverse": msg("Flows back"),
}
GAP_CAUSES: Final = {
    "no_supply": msg("the meter had no supply"),
    "link_down": msg("its link is down"),
    "silent": msg("it is silent though its link is up"),
}
