"""What the sandbox provider remembers, in SQLite: payments, their events, and webhooks to send until taken."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from billing.take_payment import PayLink, webhook_body

BEHAVIOURS = ("pay", "pay_late", "pay_twice", "decline", "pay_silent", "decline_then_pay")
LATE_BY = timedelta(seconds=8)
SILENT_FOR = timedelta(seconds=8)
CHANGE_OF_MIND = timedelta(seconds=3)
RETRY_LONGEST = timedelta(minutes=1)
# With the longest wait between attempts these are some six hours; after that asking still answers.
MAX_ATTEMPTS = 400
DUE_LIMIT = 20  # webhooks under way at one time

_SCHEMA = """
CREATE TABLE IF NOT EXISTS payment (
  payment_id TEXT PRIMARY KEY, amount_minor INTEGER NOT NULL, language TEXT NOT NULL, return_url TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS event (
  event_id TEXT PRIMARY KEY, payment_id TEXT NOT NULL REFERENCES payment, status TEXT NOT NULL,
  visible_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS webhook (
  id INTEGER PRIMARY KEY, event_id TEXT NOT NULL REFERENCES event, body BLOB NOT NULL, due_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, taken_at INTEGER);
CREATE INDEX IF NOT EXISTS webhook_open ON webhook (due_at) WHERE taken_at IS NULL;
"""


class PaymentUnknown(Exception):
    """Nobody opened the page of this payment."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a payment stands at the provider: pending, confirmed or declined, with its newest event."""

    amount_minor: int
    status: str
    event_id: str | None


@dataclass(frozen=True, slots=True)
class Webhook:
    """One message that is due."""

    id: int
    body: bytes
    attempts: int


class SandboxStore:
    """One SQLite file; every method is one transaction, on disk when it returns."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(_SCHEMA)

    @classmethod
    def in_folder(cls, state_dir: Path) -> SandboxStore:
        """The store of a state folder, which is made if needed."""
        state_dir.mkdir(parents=True, exist_ok=True)
        return cls(state_dir / "sandbox-provider.sqlite3")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def register(self, link: PayLink) -> None:
        """Remember a payment whose page was opened; a repeat changes nothing."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO payment VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (str(link.payment_id), link.amount_minor, link.language, link.return_url),
            )

    def standing(self, payment_id: UUID, now: datetime) -> Standing:
        """How a payment stands at `now`. Raises PaymentUnknown."""
        amount = self._amount(payment_id)
        row = self._db.execute(
            "SELECT status, event_id FROM event WHERE payment_id = ? AND visible_at <= ?"
            " ORDER BY visible_at DESC, rowid DESC LIMIT 1",
            (str(payment_id), _ms(now)),
        ).fetchone()
        return Standing(amount, row[0], row[1]) if row else Standing(amount, "pending", None)

    def is_decided(self, payment_id: UUID) -> bool:
        """Whether somebody pressed a button already, seen from outside or not."""
        row = self._db.execute("SELECT 1 FROM event WHERE payment_id = ?", (str(payment_id),)).fetchone()
        return row is not None

    def act(
        self, payment_id: UUID, behaviour: str, now: datetime, *, silent_for: timedelta = SILENT_FOR
    ) -> None:
        """Do what a button says; the second press on a payment changes nothing.

        Raises PaymentUnknown, or ValueError for a behaviour that is not in BEHAVIOURS.
        """
        if behaviour not in BEHAVIOURS:
            raise ValueError(f"behaviour is one of {', '.join(BEHAVIOURS)}")
        amount = self._amount(payment_id)
        # (status, seen from, webhooks)
        plan: dict[str, list[tuple[str, datetime, int]]] = {
            "pay": [("confirmed", now, 1)],
            "pay_late": [("confirmed", now + LATE_BY, 1)],
            "pay_twice": [("confirmed", now, 2)],
            "decline": [("declined", now, 1)],
            "pay_silent": [("confirmed", now + silent_for, 0)],
            "decline_then_pay": [("declined", now, 1), ("confirmed", now + CHANGE_OF_MIND, 1)],
        }
        with self._transaction() as db:
            if self.is_decided(payment_id):
                return
            for status, seen_from, count in plan[behaviour]:
                event_id = f"evt_{uuid4().hex}"
                db.execute(
                    "INSERT INTO event VALUES (?, ?, ?, ?)",
                    (event_id, str(payment_id), status, _ms(seen_from)),
                )
                body = webhook_body(event_id, payment_id, status, amount)
                for _ in range(count):
                    db.execute(
                        "INSERT INTO webhook (event_id, body, due_at) VALUES (?, ?, ?)",
                        (event_id, body, _ms(seen_from)),
                    )

    def list_due(self, now: datetime) -> list[Webhook]:
        """Webhooks to send now, oldest first."""
        rows = self._db.execute(
            "SELECT id, body, attempts FROM webhook WHERE taken_at IS NULL AND due_at <= ? AND attempts < ?"
            " ORDER BY due_at, id LIMIT ?",
            (_ms(now), MAX_ATTEMPTS, DUE_LIMIT),
        )
        return [Webhook(*row) for row in rows.fetchall()]

    def mark_taken(self, webhook_id: int, now: datetime) -> None:
        """The receiver answered with a 2xx."""
        with self._transaction() as db:
            db.execute(
                "UPDATE webhook SET taken_at = ?, attempts = attempts + 1 WHERE id = ?",
                (_ms(now), webhook_id),
            )

    def mark_failed(self, webhook: Webhook, now: datetime) -> None:
        """Not taken: again after 1, 2, 4 … seconds, at most a minute."""
        wait = min(timedelta(seconds=2 ** min(webhook.attempts, 10)), RETRY_LONGEST)
        with self._transaction() as db:
            db.execute(
                "UPDATE webhook SET due_at = ?, attempts = attempts + 1 WHERE id = ?",
                (_ms(now + wait), webhook.id),
            )

    def _amount(self, payment_id: UUID) -> int:
        row = self._db.execute(
            "SELECT amount_minor FROM payment WHERE payment_id = ?", (str(payment_id),)
        ).fetchone()
        if row is None:
            raise PaymentUnknown(str(payment_id))
        return int(row[0])


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
