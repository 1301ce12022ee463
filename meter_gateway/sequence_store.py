"""SQL of message numbers: how far each edge is complete, and what is missing behind it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from meter_gateway.topics import DROPPED, SEQUENCE_GAP

# A finding names at most so many ranges; the count beside them is complete.
MAX_RANGES = 20
# So many starts back are looked for that came and went while nobody heard the edge.
STARTS_BACK = 8
# Of one edge a sweep looks at so many messages behind the last complete one: an hour of the busiest site.
WALK = 50_000
_ONE_SWEEPER = 0x5E90


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of one edge and boot that did not come while later ones did; the first missing one is `first`."""

    edge: str
    boot: int
    first: int
    gap_since: datetime


async def lock_sweep(conn: psycopg.AsyncConnection) -> bool:
    """Take the turn until the transaction ends; False when another headend has it."""
    cursor = await conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (_ONE_SWEEPER,))
    row = await cursor.fetchone()
    return bool(row and row[0])


async def advance(conn: psycopg.AsyncConnection, *, since: datetime, now: datetime) -> None:
    """Move on how far edges are complete: those that spoke since an instant, and those with a gap.

    Of an edge that spoke, its earlier starts too, as long as it may hold something of them: until a birth says that
    nothing older waits. Reads of the ledger only what lies behind the last complete message.
    """
    await conn.execute(
        "WITH RECURSIVE spoke AS (SELECT edge, boot, backlog FROM meter_gateway.edge WHERE last_seen_at >= %(since)s),"
        # Starts that were over before we first heard of them: their queue comes now, its first message just did.
        " earlier AS (SELECT edge, boot, 0 AS place FROM spoke WHERE backlog > 0"
        "  UNION ALL SELECT l.edge, p.boot, l.place + 1 FROM earlier l CROSS JOIN LATERAL"
        "   (SELECT boot FROM meter_gateway.edge_message m WHERE m.edge = l.edge AND m.boot < l.boot"
        "     ORDER BY boot DESC LIMIT 1) p WHERE l.place < %(starts)s),"
        " heard AS (SELECT l.edge, l.boot FROM earlier l WHERE l.place > 0 AND %(since)s <="
        "  (SELECT received_at FROM meter_gateway.edge_message m WHERE m.edge = l.edge AND m.boot = l.boot"
        "    ORDER BY seq LIMIT 1)),"
        " known AS (SELECT s.edge, s.boot, coalesce(q.complete_to, 0) AS complete_to"
        "  FROM (SELECT edge, boot FROM spoke UNION SELECT edge, boot FROM heard"
        "        UNION SELECT q.edge, q.boot FROM meter_gateway.edge_sequence q JOIN spoke USING (edge)"
        "        UNION SELECT edge, boot FROM meter_gateway.edge_sequence WHERE gap_since IS NOT NULL) s"
        "  LEFT JOIN meter_gateway.edge_sequence q USING (edge, boot)),"
        # By index, edge for edge: the whole ledger is 40 days long. A gap with more behind it is walked in parts.
        " walked AS (SELECT k.edge, k.boot, a.newest, k.complete_to + a.next_ones AS upto"
        "  FROM known k CROSS JOIN LATERAL (SELECT max(seq) AS newest,"
        "    count(*) FILTER (WHERE seq = k.complete_to + place) AS next_ones"
        "   FROM (SELECT m.seq, row_number() OVER (ORDER BY m.seq) AS place FROM meter_gateway.edge_message m"
        "          WHERE m.edge = k.edge AND m.boot = k.boot AND m.seq > k.complete_to ORDER BY m.seq"
        "          LIMIT %(walk)s) f) a WHERE a.newest IS NOT NULL)"
        " INSERT INTO meter_gateway.edge_sequence AS q (edge, boot, complete_to, gap_since)"
        " SELECT edge, boot, upto, CASE WHEN newest > upto THEN %(now)s::timestamptz END FROM walked"
        " ON CONFLICT (edge, boot) DO UPDATE SET complete_to = EXCLUDED.complete_to,"
        # While it moves, the edge is at it: patience begins anew.
        " gap_since = CASE WHEN EXCLUDED.complete_to > q.complete_to THEN EXCLUDED.gap_since"
        "   WHEN EXCLUDED.gap_since IS NOT NULL THEN coalesce(q.gap_since, EXCLUDED.gap_since) END,"
        " asked_at = CASE WHEN EXCLUDED.complete_to = q.complete_to THEN q.asked_at END",
        {"since": since, "now": now, "walk": WALK, "starts": STARTS_BACK},
    )
    # Not before the edge said that nothing of an earlier start waits with it, and all that came of it was looked at.
    await conn.execute(
        "DELETE FROM meter_gateway.edge_sequence q USING meter_gateway.edge e"
        " WHERE e.edge = q.edge AND q.boot < e.boot AND q.gap_since IS NULL AND e.backlog = 0"
        "   AND NOT EXISTS (SELECT FROM meter_gateway.edge_message m"
        "                    WHERE m.edge = q.edge AND m.boot = q.boot AND m.seq > q.complete_to)"
    )


async def list_to_ask(conn: psycopg.AsyncConnection, *, before: datetime, limit: int) -> list[Gap]:
    """Return gaps open since before an instant whose edge is there and was not asked since then."""
    async with conn.cursor(row_factory=class_row(Gap)) as cursor:
        await cursor.execute(
            "SELECT q.edge, q.boot, q.complete_to + 1 AS first, q.gap_since"
            "  FROM meter_gateway.edge_sequence q JOIN meter_gateway.edge e USING (edge)"
            " WHERE q.gap_since < %(before)s AND coalesce(q.asked_at, '-infinity') < %(before)s AND e.online"
            " ORDER BY q.gap_since LIMIT %(limit)s",
            {"before": before, "limit": limit},
        )
        return await cursor.fetchall()


async def mark_asked(conn: psycopg.AsyncConnection, gap: Gap, now: datetime) -> None:
    """Note that the edge was asked for its birth because of this gap."""
    await conn.execute(
        "UPDATE meter_gateway.edge_sequence SET asked_at = %s WHERE edge = %s AND boot = %s",
        (now, gap.edge, gap.boot),
    )


async def list_lost(conn: psycopg.AsyncConnection, *, limit: int) -> list[Gap]:
    """Return gaps whose edge was asked, answered, and has nothing older left to say."""
    async with conn.cursor(row_factory=class_row(Gap)) as cursor:
        await cursor.execute(
            "SELECT q.edge, q.boot, q.complete_to + 1 AS first, q.gap_since"
            "  FROM meter_gateway.edge_sequence q JOIN meter_gateway.edge e USING (edge)"
            " WHERE q.gap_since IS NOT NULL AND e.born_at > q.asked_at AND e.backlog = 0 AND e.boot >= q.boot"
            " ORDER BY q.gap_since LIMIT %s",
            (limit,),
        )
        return await cursor.fetchall()


async def find_missing(conn: psycopg.AsyncConnection, gap: Gap) -> list[tuple[int, int]]:
    """Return the missing ranges, both ends included, up to what was there when the gap was noticed."""
    cursor = await conn.execute(
        "WITH there AS (SELECT seq, lag(seq, 1, %(before)s::bigint) OVER (ORDER BY seq) AS previous"
        "  FROM meter_gateway.edge_message WHERE edge = %(edge)s AND boot = %(boot)s AND seq > %(before)s)"
        " SELECT previous + 1, seq - 1 FROM there WHERE seq > previous + 1 AND seq <="
        "  (SELECT max(seq) FROM meter_gateway.edge_message"
        "    WHERE edge = %(edge)s AND boot = %(boot)s AND seq > %(before)s AND received_at <= %(since)s)"
        " ORDER BY 1",
        {"edge": gap.edge, "boot": gap.boot, "before": gap.first - 1, "since": gap.gap_since},
    )
    return [(first, last) for first, last in await cursor.fetchall()]


async def insert_finding(conn: psycopg.AsyncConnection, gap: Gap, missing: list[tuple[int, int]]) -> None:
    """Tell what is missing as an event of the edge, and let completeness begin anew behind it.

    `given_up` says how many values the edge itself told to have given up since the day before.
    """
    detail = {
        "boot": gap.boot,
        "missing": sum(last - first + 1 for first, last in missing),
        "ranges": [list(one) for one in missing[:MAX_RANGES]],
    }
    await conn.execute(
        "INSERT INTO meter_gateway.meter_event (meter_id, edge, code, occurred_at, detail)"
        " SELECT (SELECT id FROM meter_gateway.meter WHERE drn = %(edge)s), %(edge)s, %(code)s, %(since)s,"
        "   %(detail)s || jsonb_build_object('given_up', coalesce(sum((detail ->> 'count')::bigint), 0))"
        "  FROM meter_gateway.meter_event"
        " WHERE edge = %(edge)s AND code = %(dropped)s AND occurred_at > %(since)s - interval '1 day'"
        "   AND detail ->> 'count' ~ '^[0-9]{1,15}$'",
        {
            "edge": gap.edge,
            "code": SEQUENCE_GAP,
            "since": gap.gap_since,
            "detail": Jsonb(detail),
            "dropped": DROPPED,
        },
    )
    await conn.execute(
        "UPDATE meter_gateway.edge_sequence SET complete_to = %s, gap_since = NULL, asked_at = NULL"
        " WHERE edge = %s AND boot = %s",
        (missing[-1][1] if missing else gap.first - 1, gap.edge, gap.boot),
    )
