"""How often something may be tried: fixed windows, counted in the database so that every process agrees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `hits` tries in each window of `window_s` seconds."""

    name: str
    hits: int
    window_s: int


class TooManyAttempts(Exception):
    """A limit was passed; `retry_after_s` says when its window ends."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many attempts, again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


# A person mistypes a phone or waits for a slow SMS a few times; a script tries hundreds of times.
CODE_PER_PHONE = Limit("code-phone", 5, 900)
CODE_PER_ADDRESS = Limit("code-address", 30, 900)  # a whole office may share one address
CHECK_PER_PHONE = Limit("check-phone", 15, 900)
CHECK_PER_ADDRESS = Limit("check-address", 60, 900)
STAFF_PER_NAME = Limit("staff-name", 10, 900)
STAFF_PER_ADDRESS = Limit("staff-address", 40, 900)
# Two receipts left open, which look again every 15 s, and a person who reads a few more.
TOKEN_VIEW_PER_LOGIN = Limit("token-view", 120, 600)
TOKEN_TYPE_PER_METER = Limit("token-type", 10, 600)  # a meter locks its keypad long before
BUY_PER_LOGIN = Limit("buy", 30, 600)


def window_start(now: datetime, limit: Limit) -> datetime:
    """Return when the window that `now` falls into began."""
    second = int(now.timestamp())
    return datetime.fromtimestamp(second - second % limit.window_s, UTC)


def check_hits(hits: int, limit: Limit, now: datetime) -> None:
    """Raise TooManyAttempts when `hits`, this one included, pass the limit."""
    if hits > limit.hits:
        left = limit.window_s - int(now.timestamp()) % limit.window_s
        raise TooManyAttempts(left)
