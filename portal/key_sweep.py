"""The worker's rounds over keys: make planned tokens, learn what meters said, make requested engineering tokens."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import psycopg

from billing import credit_carry_store, engineering_store, key_change_store, key_plan_store
from portal import change_keys, issue_engineering
from portal.change_keys import Pool
from portal.field import carry_credit
from token_engine.vault import EngineeringVault

log = logging.getLogger(__name__)

# One round looks at this many of each; with a round a second a fleet of 4,000 meters is walked in three minutes.
BATCH = 25
# Looking through every meter of every signed plan is work: when nothing was to begin, so many rounds are skipped.
IDLE_ROUNDS = 5


@dataclass(slots=True)
class KeySweep:
    """What a round needs."""

    pool: Pool
    vault: EngineeringVault
    now_fn: Callable[[], datetime]
    skip: int = field(default=0)

    async def round(self) -> None:
        """One round of everything. Raises psycopg.OperationalError when the database is away."""
        await self.begin_planned()
        await self.issue_planned()
        await self.follow_issued()
        await self.issue_requested()
        await self.issue_carried()

    async def begin_planned(self) -> int:
        """Begin the changes of approved plans, a slice of meters at a time; gives how many."""
        if self.skip > 0:
            self.skip -= 1
            return 0
        async with self.pool.connection() as conn:
            begun = await key_plan_store.begin_changes(conn, now=self.now_fn(), limit=BATCH)
        self.skip = 0 if begun else IDLE_ROUNDS
        return begun

    async def issue_planned(self) -> int:
        """Have the tokens of begun changes made."""
        async with self.pool.connection() as conn:
            changes = await key_change_store.list_changes_to_issue(conn, limit=BATCH)
        for change in changes:
            await self._one(
                f"key change {change.id}",
                change_keys.issue_change(self.pool, self.vault, change.id, self.now_fn),
            )
        return len(changes)

    async def follow_issued(self) -> int:
        """Read what meters said to their key-change tokens."""
        async with self.pool.connection() as conn:
            changes = await key_change_store.list_changes_to_follow(conn, limit=BATCH)
        for change in changes:
            await self._one(f"key change {change.id}", self._follow(change.id))
        return len(changes)

    async def _follow(self, change_id: UUID) -> None:
        async with self.pool.connection() as conn:
            await change_keys.follow_change(conn, change_id, self.now_fn())

    async def issue_requested(self) -> int:
        """Have approved engineering tokens made."""
        async with self.pool.connection() as conn:
            requests = await engineering_store.list_requests_to_issue(conn, limit=BATCH)
        for request in requests:
            await self._one(
                f"engineering request {request.id}",
                issue_engineering.issue_request(self.pool, self.vault, request.id, self.now_fn),
            )
        return len(requests)

    async def issue_carried(self) -> int:
        """Have the tokens made that bring a removed meter's credit to the next one."""
        async with self.pool.connection() as conn:
            carries = await credit_carry_store.list_to_issue(conn, limit=BATCH)
        for carry in carries:
            await self._one(
                f"carried credit {carry.id}",
                carry_credit.issue_carry(self.pool, self.vault, carry.id, self.now_fn),
            )
        return len(carries)

    async def _one(self, what: str, step: Awaitable[object]) -> None:
        try:
            await step
        except psycopg.OperationalError:
            raise
        except Exception:  # one fault must not hold up the others
            log.exception("%s could not be done", what)
