"""How long the credit on a meter lasts, in the words that prepaid meters of Oman show (field rules A2)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MOST_SHOWN = 99  # two digits on the meter's own display
STALE_AFTER = timedelta(days=3)  # a weekend without a link: older credit is a guess, not a figure
SHORTEST_SPAN = timedelta(hours=6)  # less than this says nothing about a day
DAY_S = 86_400
LOW_DAYS = 3  # time enough to buy before a weekend ends


class Word(StrEnum):
    """The five answers."""

    NO_DATA = "no_data"
    NO_CREDIT = "no_credit"
    OVER_99 = "over_99"
    BELOW_1 = "below_1"
    DAYS = "days"


@dataclass(frozen=True, slots=True)
class DaysLeft:
    """One answer; `days` counts only with the word DAYS."""

    word: Word
    days: int = 0

    @property
    def tone(self) -> str:
        """Return ok, warn, bad or quiet: how a tile colours the answer."""
        if self.word is Word.NO_CREDIT:
            return "bad"
        if self.word is Word.BELOW_1 or (self.word is Word.DAYS and self.days <= LOW_DAYS):
            return "warn"
        return "quiet" if self.word is Word.NO_DATA else "ok"


def days_left(
    *, credit: int | None, state_at: datetime | None, used: int | None, span: timedelta, now: datetime
) -> DaysLeft:
    """Return how many whole days `credit` lasts at the pace of `used` over `span` (both in Wh, or both in mL)."""
    if credit is None or state_at is None or now - state_at > STALE_AFTER:
        return DaysLeft(Word.NO_DATA)
    if credit <= 0:
        return DaysLeft(Word.NO_CREDIT)
    if used is None or span < SHORTEST_SPAN:
        return DaysLeft(Word.NO_DATA)
    if used <= 0:
        return DaysLeft(Word.OVER_99)
    days = credit * int(span.total_seconds()) // (used * DAY_S)
    if days < 1:
        return DaysLeft(Word.BELOW_1)
    return DaysLeft(Word.OVER_99) if days > MOST_SHOWN else DaysLeft(Word.DAYS, days)
