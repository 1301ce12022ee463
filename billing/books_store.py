"""The check of the books in SQL: sums, liabilities and each sale against its token."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Imbalance:
    """One thing that does not add up: which check, about what, and the two numbers in baisa."""

    kind: str
    reference: str
    expected_minor: int
    found_minor: int


# Each SELECT gives only rows that are wrong: (kind, reference, expected, found).
_CHECKS = (
    # Every posting has its opposite.
    """
    SELECT 'ledger_not_zero' AS kind, 'all' AS reference, 0::bigint AS expected_minor,
           coalesce(sum(amount_minor), 0)::bigint AS found_minor
      FROM billing.posting HAVING coalesce(sum(amount_minor), 0) <> 0
    """,
    """
    SELECT 'entry_not_zero', p.journal_id::text, 0::bigint, sum(p.amount_minor)::bigint
      FROM billing.posting p GROUP BY p.journal_id HAVING sum(p.amount_minor) <> 0
    """,
    # What we owe customers is exactly what they paid and have no token for.
    """
    SELECT 'prepaid_liability', 'customer ' || coalesce(o.customer_id, b.customer_id),
           -coalesce(o.owed, 0), coalesce(b.balance, 0)
      FROM (SELECT a.customer_id, sum(q.amount_minor)::bigint AS owed
              FROM billing.vend v JOIN billing.quote q ON q.id = v.quote_id
              JOIN billing.customer_agreement a ON a.id = q.customer_agreement_id
             WHERE v.state IN ('PAID', 'REQUESTED', 'UNKNOWN', 'REFUSED', 'REVERSED')
             GROUP BY a.customer_id) o
      FULL JOIN (SELECT customer_id, sum(amount_minor)::bigint AS balance FROM billing.posting
                  WHERE account = 'prepaid_liability' GROUP BY customer_id) b ON b.customer_id = o.customer_id
     WHERE -coalesce(o.owed, 0) <> coalesce(b.balance, 0)
    """,
    # A confirmed payment is in the books once, with its amount; any other is not, unless as suspense.
    """
    SELECT 'payment_not_posted', p.id::text, p.amount_minor, coalesce(sum(l.amount_minor), 0)::bigint
      FROM billing.payment p
      LEFT JOIN billing.journal j ON j.reference = p.id::text AND j.kind IN ('payment', 'suspense')
      LEFT JOIN billing.posting l ON l.journal_id = j.id AND l.account = 'provider_clearing'
     WHERE p.state = 'CONFIRMED' GROUP BY p.id HAVING coalesce(sum(l.amount_minor), 0) <> p.amount_minor
    """,
    """
    SELECT 'payment_posted_unconfirmed', p.id::text, 0::bigint, p.amount_minor
      FROM billing.payment p JOIN billing.journal j ON j.reference = p.id::text AND j.kind = 'payment'
     WHERE p.state <> 'CONFIRMED'
    """,
    # An issued vend has one token that carries the quoted units.
    """
    SELECT 'vend_tokens', v.id::text, q.units_tenths, coalesce(sum(t.units_tenths), 0)::bigint
      FROM billing.vend v JOIN billing.quote q ON q.id = v.quote_id
      LEFT JOIN billing.token t ON t.vend_id = v.id
     WHERE v.state IN ('VENDED', 'REVERSED') GROUP BY v.id, q.units_tenths
    HAVING count(t.id) <> 1 OR sum(t.units_tenths) <> q.units_tenths
    """,
    """
    SELECT 'token_without_vend', t.id::text, 0::bigint, coalesce(t.units_tenths, 0)
      FROM billing.token t JOIN billing.vend v ON v.id = t.vend_id
     WHERE v.state NOT IN ('VENDED', 'REVERSED', 'REFUNDED')
    """,
    # Revenue + VAT + arrears + change of an issued vend are what was paid.
    """
    SELECT 'vend_not_posted', v.id::text, -q.amount_minor, coalesce(sum(l.amount_minor), 0)::bigint
      FROM billing.vend v JOIN billing.quote q ON q.id = v.quote_id
      LEFT JOIN billing.journal j ON j.reference = v.id::text AND j.kind IN ('vend', 'arrears')
      LEFT JOIN billing.posting l ON l.journal_id = j.id AND l.account <> 'prepaid_liability'
     WHERE v.state IN ('VENDED', 'REVERSED')
     GROUP BY v.id, q.amount_minor HAVING coalesce(sum(l.amount_minor), 0) <> -q.amount_minor
    """,
    """
    SELECT 'vend_energy_or_vat', v.id::text, -(q.energy_minor + q.vat_minor), coalesce(sum(l.amount_minor), 0)::bigint
      FROM billing.vend v JOIN billing.quote q ON q.id = v.quote_id
      LEFT JOIN billing.journal j ON j.reference = v.id::text AND j.kind = 'vend'
      LEFT JOIN billing.posting l ON l.journal_id = j.id
           AND (l.account = 'vat_payable' OR l.account LIKE 'revenue.%')
     WHERE v.state IN ('VENDED', 'REVERSED') GROUP BY v.id, q.energy_minor, q.vat_minor
    HAVING coalesce(sum(l.amount_minor), 0) <> -(q.energy_minor + q.vat_minor)
    """,
    # A debt is never paid twice.
    """
    SELECT 'arrears_overpaid', 'customer ' || customer_id, 0::bigint, sum(amount_minor)::bigint
      FROM billing.posting WHERE account = 'arrears_receivable' GROUP BY customer_id HAVING sum(amount_minor) < 0
    """,
    # A change is always the customer's, never a debt.
    """
    SELECT 'change_overdrawn', 'customer ' || customer_id, 0::bigint, sum(amount_minor)::bigint
      FROM billing.posting WHERE account = 'customer_change' GROUP BY customer_id HAVING sum(amount_minor) > 0
    """,
)
_ALL = " UNION ALL ".join(_CHECKS)


async def list_imbalances(conn: psycopg.AsyncConnection) -> list[Imbalance]:
    """Every row of every check, in the order of the checks; one snapshot."""
    cursor = conn.cursor(row_factory=class_row(Imbalance))
    await cursor.execute(_ALL.encode())
    return await cursor.fetchall()
