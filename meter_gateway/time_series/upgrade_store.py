"""SQL that moves readings from plain partitions into a hypertable beside them, while ingest goes on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import psycopg
from psycopg import sql
from psycopg.rows import class_row

# A lock that does not come at once is given up and asked for again: ingest waits behind whoever waits.
LOCK_TIMEOUT: Final = "SET LOCAL lock_timeout = '2s'"


@dataclass(frozen=True, slots=True)
class Part:
    """A partition of readings: [starts_at, ends_at)."""

    name: str
    starts_at: datetime
    ends_at: datetime
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Compared:
    """Rows and a checksum over their whole content of one span in both tables, seen at one instant."""

    rows: int
    rows_next: int
    checksum: int | None
    checksum_next: int | None

    @property
    def agree(self) -> bool:
        """Whether both tables hold the same."""
        return (self.rows, self.checksum) == (self.rows_next, self.checksum_next)


@dataclass(frozen=True, slots=True)
class Dependents:
    """What must look at the new table: (name, definition) of views, definitions of triggers."""

    views: list[tuple[str, str]]
    triggers: list[str]


async def is_offered(conn: psycopg.AsyncConnection) -> bool:
    """Whether this server has TimescaleDB's files and loads its library."""
    cursor = await conn.execute(
        "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
        " AND current_setting('shared_preload_libraries') LIKE '%timescaledb%'"
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


async def is_begun(conn: psycopg.AsyncConnection) -> bool:
    """Whether an upgrade was begun and not ended."""
    cursor = await conn.execute("SELECT to_regclass('meter_gateway.reading_upgrade') IS NOT NULL")
    row = await cursor.fetchone()
    return bool(row and row[0])


async def list_parts(conn: psycopg.AsyncConnection) -> list[Part]:
    """Return the partitions of readings, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Part))
    await cursor.execute(
        "SELECT name, starts_at, ends_at, size_bytes FROM meter_gateway.time_partition"
        " WHERE parent = 'reading' AND starts_at IS NOT NULL ORDER BY starts_at"
    )
    return await cursor.fetchall()


async def begin(conn: psycopg.AsyncConnection) -> None:
    """Make the hypertable and let every new reading go into both tables. Raises LockNotAvailable."""
    await conn.execute("CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public")
    await conn.execute("CREATE TABLE meter_gateway.reading_next (LIKE meter_gateway.reading INCLUDING ALL)")
    await conn.execute(
        "SELECT public.create_hypertable('meter_gateway.reading_next', 'occurred_at',"
        " chunk_time_interval => interval '1 month')"
    )
    await conn.execute(
        "CREATE TABLE meter_gateway.reading_upgrade"
        " (day_start timestamptz PRIMARY KEY, rows bigint NOT NULL, done_at timestamptz NOT NULL DEFAULT now())"
    )
    await conn.execute(
        sql.SQL(
            "CREATE FUNCTION meter_gateway.mirror_reading() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO meter_gateway.reading_next ({columns}) SELECT {columns} FROM new_rows"
            " ON CONFLICT DO NOTHING; RETURN NULL; END $$"
        ).format(columns=await _columns(conn))
    )
    # Making a trigger waits for the inserts under way: from here on none is missed by both copy and mirror.
    await conn.execute(LOCK_TIMEOUT)
    await conn.execute(
        "CREATE TRIGGER reading_is_mirrored AFTER INSERT ON meter_gateway.reading"
        " REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT"
        " EXECUTE FUNCTION meter_gateway.mirror_reading()"
    )


async def _columns(conn: psycopg.AsyncConnection) -> sql.Composed:
    cursor = await conn.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'meter_gateway.reading'::regclass"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    )
    return sql.SQL(", ").join(sql.Identifier(name) for (name,) in await cursor.fetchall())


async def is_copied(conn: psycopg.AsyncConnection, start: datetime) -> bool:
    """Whether the day that starts so was copied."""
    cursor = await conn.execute("SELECT FROM meter_gateway.reading_upgrade WHERE day_start = %s", (start,))
    return await cursor.fetchone() is not None


async def copy_day(conn: psycopg.AsyncConnection, start: datetime, end: datetime) -> int:
    """Copy the readings of [start, end) that are not there yet and note the day; returns how many."""
    cursor = await conn.execute(
        sql.SQL(
            "INSERT INTO meter_gateway.reading_next ({columns}) SELECT {columns} FROM meter_gateway.reading"
            " WHERE occurred_at >= %s AND occurred_at < %s ON CONFLICT DO NOTHING"
        ).format(columns=await _columns(conn)),
        (start, end),
    )
    rows = cursor.rowcount
    await conn.execute(
        "INSERT INTO meter_gateway.reading_upgrade (day_start, rows) VALUES (%s, %s)", (start, rows)
    )
    return rows


async def compare(conn: psycopg.AsyncConnection, start: datetime, end: datetime) -> Compared:
    """Count both tables' readings of [start, end) and add up their content, in one look."""
    cursor = conn.cursor(row_factory=class_row(Compared))
    await cursor.execute(
        "SELECT a.n AS rows, b.n AS rows_next, a.x AS checksum, b.x AS checksum_next FROM"
        " (SELECT count(*) AS n, bit_xor(hashtextextended(r::text, 0)) AS x FROM meter_gateway.reading r"
        "   WHERE occurred_at >= %(start)s AND occurred_at < %(end)s) a,"
        " (SELECT count(*) AS n, bit_xor(hashtextextended(r::text, 0)) AS x FROM meter_gateway.reading_next r"
        "   WHERE occurred_at >= %(start)s AND occurred_at < %(end)s) b",
        {"start": start, "end": end},
    )
    row = await cursor.fetchone()
    if row is None:
        raise psycopg.DataError("a count gave no row")
    return row


async def lock_both(conn: psycopg.AsyncConnection) -> None:
    """Keep everybody else out of both tables until the transaction ends. Raises LockNotAvailable."""
    await conn.execute(LOCK_TIMEOUT)
    await conn.execute(
        "LOCK TABLE meter_gateway.reading, meter_gateway.reading_next IN ACCESS EXCLUSIVE MODE"
    )


async def list_dependents(conn: psycopg.AsyncConnection) -> Dependents:
    """Return what looks at the table of readings, with names that any search path understands."""
    await conn.execute("SET LOCAL search_path = pg_catalog")
    views = await conn.execute(
        "SELECT DISTINCT c.oid::regclass::text, pg_get_viewdef(c.oid)"
        "  FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class"
        " WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = 'meter_gateway.reading'::regclass"
        "   AND c.relkind = 'v'"
    )
    triggers = await conn.execute(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'meter_gateway.reading'::regclass"
        " AND NOT tgisinternal AND tgname <> 'reading_is_mirrored' ORDER BY tgname"
    )
    return Dependents(
        [(name, text) for name, text in await views.fetchall()],
        [text for (text,) in await triggers.fetchall()],
    )


async def swap(conn: psycopg.AsyncConnection, dependents: Dependents) -> None:
    """Put the hypertable in the place of the plain table, which is reading_before from now on."""
    for statement in (
        "DROP TRIGGER reading_is_mirrored ON meter_gateway.reading",
        "DROP FUNCTION meter_gateway.mirror_reading()",
        "ALTER TABLE meter_gateway.reading RENAME TO reading_before",
        "ALTER TABLE meter_gateway.reading_next RENAME TO reading",
    ):
        await conn.execute(statement)
    for name, text in dependents.views:
        await conn.execute(f"CREATE OR REPLACE VIEW {name} AS {text}".encode())
    for text in dependents.triggers:
        await conn.execute(text.encode())
    await _rename_indexes(conn)
    await conn.execute("DROP TABLE meter_gateway.reading_upgrade")
    await conn.execute("SET LOCAL search_path = public")  # TimescaleDB's own triggers end the transaction


async def is_left_over(conn: psycopg.AsyncConnection) -> bool:
    """Whether the plain table is still there after its place was taken."""
    cursor = await conn.execute("SELECT to_regclass('meter_gateway.reading_before') IS NOT NULL")
    row = await cursor.fetchone()
    return bool(row and row[0])


async def drop_left_over(conn: psycopg.AsyncConnection) -> None:
    """Let the plain table go. Raises when anything still needs it."""
    await conn.execute("DROP TABLE meter_gateway.reading_before")


async def _rename_indexes(conn: psycopg.AsyncConnection) -> None:
    """Let the new table's indexes bear the old names, as in a database that was made with them."""
    cursor = await conn.execute(
        "SELECT o.relname, n.relname FROM pg_index oi JOIN pg_class o ON o.oid = oi.indexrelid"
        "  JOIN pg_index ni ON ni.indkey = oi.indkey JOIN pg_class n ON n.oid = ni.indexrelid"
        " WHERE oi.indrelid = 'meter_gateway.reading_before'::regclass"
        "   AND ni.indrelid = 'meter_gateway.reading'::regclass AND o.relam = n.relam"
    )
    pairs = [one for old, new in await cursor.fetchall() for one in ((old, f"{old}_before"), (new, old))]
    taken = {name for name, _ in pairs}
    cursor = await conn.execute(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'meter_gateway' AND tablename = 'reading'"
    )
    # Those that a hypertable brings of itself bear the name that the table had then.
    pairs += [
        (name, name.replace("reading_next", "reading"))
        for (name,) in await cursor.fetchall()
        if name not in taken and "reading_next" in name
    ]
    for name, other in pairs:
        await conn.execute(
            sql.SQL("ALTER INDEX meter_gateway.{} RENAME TO {}").format(
                sql.Identifier(name), sql.Identifier(other)
            )
        )


async def cancel(conn: psycopg.AsyncConnection) -> None:
    """Forget a begun upgrade: the plain table was whole all the time. Raises LockNotAvailable."""
    await conn.execute(LOCK_TIMEOUT)
    await conn.execute("DROP TRIGGER IF EXISTS reading_is_mirrored ON meter_gateway.reading")
    await conn.execute("DROP FUNCTION IF EXISTS meter_gateway.mirror_reading()")
    await conn.execute("DROP TABLE IF EXISTS meter_gateway.reading_next")  # a hypertable goes by itself
    await conn.execute("DROP TABLE IF EXISTS meter_gateway.reading_upgrade")


async def analyze(conn: psycopg.AsyncConnection) -> None:
    """Let the planner know the new table."""
    await conn.execute("ANALYZE meter_gateway.reading")
