"""Tell a customer once that water never stops at their meter: an SMS in the daytime, through the outbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from portal import message_store, readings_store
from portal.formats import in_muscat
from portal.i18n import Language, msg
from portal.readings_store import OpenLeak
from portal.runtime import Pool

# It has run for two days: it can wait until people are awake.
FIRST_HOUR: Final = 7
LAST_HOUR: Final = 21
BATCH: Final = 50
ML_PER_LITRE: Final = 1000
LEAK_MESSAGE: Final = msg(
    "Water has run without a stop for two days at your meter %(drn)s, at least %(litres)s litres an hour."
    " Close all taps and look at the meter: if it still counts, a pipe or a cistern leaks."
    " It uses up your credit."
)


@dataclass(frozen=True, slots=True)
class LeakNotices:
    """What a round needs."""

    pool: Pool
    languages: Mapping[str, Language]
    now_fn: Callable[[], datetime]

    async def round(self) -> int:
        """Put a message for each leak that nobody was told of into the outbox; returns how many."""
        now = self.now_fn()
        if not FIRST_HOUR <= in_muscat(now).hour < LAST_HOUR:
            return 0
        async with self.pool.connection() as conn:
            untold = await readings_store.list_untold_leaks(conn, limit=BATCH)
            for leak in untold:
                await message_store.insert_message(
                    conn,
                    idempotency_key=f"leak:{leak.finding_id}",
                    customer_id=leak.customer_id,
                    phone=leak.phone,
                    kind="leak",
                    language=leak.language,
                    body=leak_body(leak, self.languages[leak.language]),
                    reference=str(leak.finding_id),
                    now=now,
                )
        return len(untold)


def leak_body(leak: OpenLeak, language: Language) -> str:
    """The words of the message; below a litre an hour it says one."""
    litres = max(1, leak.least_per_hour // ML_PER_LITRE)
    return language._(LEAK_MESSAGE, drn=leak.drn, litres=litres)
