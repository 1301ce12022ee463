"""Forget what nobody needs any more: codes, ended sessions, old windows of rate limits, old messages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from portal import forget_store, rate_limit_store, session_store
from portal.sell import Pool

log = logging.getLogger(__name__)

EVERY: Final = timedelta(hours=1)
# A code is worth minutes; a day later it tells an inquiry whether one was asked for.
CODE_AGE: Final = timedelta(days=1)
# The longest window of a rate limit is a quarter of an hour; two days show an inquiry what was tried.
WINDOW_AGE: Final = timedelta(days=2)
# The text of a code that was sent: as long as a customer may say that it never came.
CODE_MESSAGE_AGE: Final = timedelta(days=30)
# Tokens, payments, tickets and outages as they were told: as long as readings; what they tell of stays in the books.
MESSAGE_AGE: Final = timedelta(days=25 * 31)
# One transaction takes this many rows at most; the next follows at once.
SLICE: Final = 5_000


@dataclass(slots=True)
class Forget:
    """Forgets once an hour; a round in between does nothing."""

    pool: Pool
    now_fn: Callable[[], datetime]
    done_at: datetime | None = field(default=None)

    async def round(self) -> int:
        """Forget what is due; gives how many rows went. Raises psycopg.Error when the database is away."""
        now = self.now_fn()
        if self.done_at is not None and now - self.done_at < EVERY:
            return 0
        gone = await self._messages(now)
        async with self.pool.connection() as conn:
            gone += await forget_store.delete_codes(conn, now - CODE_AGE)
            gone += await session_store.delete_expired_sessions(conn, now)
            gone += await rate_limit_store.delete_old_windows(conn, now - WINDOW_AGE)
        self.done_at = now
        if gone:
            log.info("%d old codes, sessions and messages forgotten", gone)
        return gone

    async def _messages(self, now: datetime) -> int:
        gone, taken = 0, SLICE
        while taken == SLICE:
            async with self.pool.connection() as conn:
                taken = await forget_store.delete_messages(
                    conn, codes_before=now - CODE_MESSAGE_AGE, others_before=now - MESSAGE_AGE, limit=SLICE
                )
            gone += taken
        return gone
