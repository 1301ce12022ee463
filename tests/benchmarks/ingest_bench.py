"""MQTT to committed rows beside mosquitto_sub, and readings beside `psql \\copy`: `make bench WHAT=ingest`.

Messages. Uplinks of about 150 bytes with one reading each (the most messages for a reading), and with the four
channels of a poll, of 2,000 meters in turn behind four gateways. Each gateway is Debian's `mosquitto_pub -l` at QoS 1, a
process of C that sends as fast as the broker takes them. Each round sends 60,000 messages twice through one mosquitto:

- anchor: under another first word of the topic, to `mosquitto_sub` (QoS 1, a kept session, writing to a file);
- ours: to `raseed headend`, one process, which validates, commits (synchronous_commit on, fsync on) and
  acknowledges, then sends its receipts.

Both are timed alike, by the wall: from the start of the publisher until the last message was written by
mosquitto_sub, or is found committed by another connection. All four processes share the machine, as they would at a
site. Rounds take turns, so that a slow spell meets both; a ratio is that of one round, its median is held against the
goal. Four channels make four rows of what is one message to mosquitto_sub: told, without a goal. After each round of
ours the rows are counted one by one: what is missing is lost.

Readings. 200,000 rows of 2,000 meters go into the empty hypertable once by `psql \\copy`, in one transaction and
without any check, and once by `reading_store.insert_readings`, in batches of the size of ingest's and a commit each.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
from psycopg import sql

from meter_gateway import ingest, reading_store
from meter_gateway.message_key import to_millis
from meter_gateway.reading_store import StoredReading
from meter_gateway.topics import Channel
from raseed import processes
from raseed.embedded_postgres import EmbeddedPostgres
from raseed.migrate import migrate
from raseed.supervisor import role_argv
from tests.benchmarks.bench import ROUNDS, Case, Measured, table
from tests.conftest import with_database
from tests.soak.house import find_mosquitto, free_ports
from tests.soak.memory import measure as memory_of
from tests.timescale import ROOT, TimescaleMissing, timescale_server

MESSAGES = 60_000
METERS = 2_000
ROWS = 200_000
GOAL = 0.5
GATEWAYS = 4
CHANNELS: tuple[Channel, ...] = ("counter", "credit", "load", "relay")
# A round that takes this long has lost a message.
ROUND_TIMEOUT_S = 120.0
POLL_S = 0.03
MIB = 1024 * 1024
CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 200000
max_inflight_messages 12000
"""


class CannotMeasure(Exception):
    """This machine lacks a part, and which."""


@dataclass
class Lines:
    """Lines of the table, what to say beside it, and how many readings were sent and never found."""

    measured: list[Measured]
    said: list[str]
    lost: int

    @property
    def faults(self) -> list[str]:
        """Names of missed goals, and the loss; empty when all is well."""
        missed = [one.case.name for one in self.measured if not one.met]
        return missed + ([f"{self.lost} lost"] if self.lost else [])


@dataclass(frozen=True)
class Load:
    """Messages with `channels` readings each."""

    name: str
    channels: tuple[Channel, ...]
    goal: float | None = None


LOADS = (Load("one reading", ("credit",), GOAL), Load("four channels", CHANNELS))


def drn_of(number: int) -> str:
    """The number of the meter that has this place in the fleet."""
    return f"{7_000_000_000 + number:011d}"


def gateway(number: int) -> str:
    """The name of a gateway; it speaks for every fourth meter."""
    return f"bench-{number}"


def uplinks(load: Load, boot: int, count: int, day: datetime) -> list[bytes]:
    """`count` messages: all meters in turn, later and with more on the counter by boot and turn."""
    payloads = []
    for seq in range(count):
        turn, number = divmod(seq, METERS)
        step = 100 * boot + turn
        at, drn = to_millis(day) + 10_000 * step, drn_of(number)
        values = {"counter": 1_000_000 + step, "credit": 50_000 - step, "load": 1200, "relay": 1}
        records = [
            {"type": "reading", "meter": drn, "channel": channel, "at": at, "value": values[channel]}
            for channel in load.channels
        ]
        # Without what the contract fills in by itself: a frugal meter's message, the most of them a second.
        message = {"edge": gateway(seq % GATEWAYS), "boot": boot, "seq": seq, "sent": at, "records": records}
        payloads.append(msgspec.json.encode(message))
    return payloads


class Town:
    """A broker, a database with the fleet in it, and one headend, all started for this bench."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.port = free_ports(1)[0]
        self._boot = 0
        self._day = datetime.now(UTC) - timedelta(days=1)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start broker and headend, and end them."""
        conf = self.folder / "mosquitto.conf"
        conf.write_text(CONF.format(port=self.port))
        mosquitto = find_mosquitto()
        if mosquitto is None or shutil.which("mosquitto_sub") is None:
            raise CannotMeasure("mosquitto and mosquitto_sub are not installed: apt-get install them")
        env = {
            **os.environ,
            "DATABASE_URL": self.database_url,
            "MQTT_URL": f"mqtt://127.0.0.1:{self.port}",
            "RASEED_STATE_DIR": str(self.folder),
            "RASEED_LOG_LEVEL": "WARNING",
        }
        broker = subprocess.Popen([mosquitto, "-c", str(conf)], stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        self.headend = subprocess.Popen(role_argv("headend"), env=env)
        try:
            self._warm_up()
            yield
        finally:
            for process in (self.headend, broker):
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=20)

    def _warm_up(self) -> None:
        """Wait until the headend stores what it is sent."""
        payload = uplinks(LOADS[1], 0, METERS, self._day)
        deadline = time.monotonic() + 30
        with psycopg.connect(self.database_url, autocommit=True) as conn:
            while not is_stored(conn, 0, METERS):
                if time.monotonic() > deadline:
                    raise CannotMeasure("the headend stores nothing")
                for mouth in self._publish("rsd/1", self._files(payload)):
                    mouth.wait()
                time.sleep(0.5)

    def _client(self, name: str, *words: str) -> list[str]:
        return [name, "-h", "127.0.0.1", "-p", str(self.port), "-V", "5", "-q", "1", *words]

    def _files(self, payloads: Sequence[bytes]) -> list[Path]:
        paths = [self.folder / f"messages-{number}" for number in range(GATEWAYS)]
        for number, path in enumerate(paths):
            path.write_bytes(b"".join(payload + b"\n" for payload in payloads[number::GATEWAYS]))
        return paths

    def _publish(self, contract: str, files: Sequence[Path]) -> list[subprocess.Popen[bytes]]:
        mouths = []
        for number, path in enumerate(files):
            words = ("-t", f"{contract}/up/{gateway(number)}/data", "-l")
            with path.open("rb") as lines:
                mouths.append(subprocess.Popen(self._client("mosquitto_pub", *words), stdin=lines))
        return mouths

    def anchor_round(self, payloads: Sequence[bytes]) -> float:
        """Messages per second through mosquitto_sub."""
        words = ("-c", "-i", "anchor", "-x", "600", "-t", "rsd/0/up/+/+")
        # The session first, so that no message comes before its subscription.
        subprocess.run(self._client("mosquitto_sub", "-E", *words), check=True, timeout=30)
        messages = self._files(payloads)
        with (self.folder / "heard").open("wb") as heard:
            ear = subprocess.Popen(
                self._client("mosquitto_sub", "-C", str(len(payloads)), *words), stdout=heard
            )
        time.sleep(0.2)
        began = time.monotonic()
        mouths = self._publish("rsd/0", messages)
        ear.wait(timeout=ROUND_TIMEOUT_S)
        took_s = time.monotonic() - began
        for mouth in mouths:
            mouth.wait()
        if (self.folder / "heard").read_bytes().count(b"\n") != len(payloads):
            raise CannotMeasure("mosquitto_sub did not write what it was sent")
        return len(payloads) / took_s

    def our_round(self, load: Load) -> tuple[float, list[bytes], int]:
        """Messages per second into committed rows; the messages; how many readings are missing."""
        self._boot += 1
        payloads = uplinks(load, self._boot, MESSAGES, self._day)
        messages = self._files(payloads)
        with psycopg.connect(self.database_url, autocommit=True) as conn:
            before = count_readings(conn)
            began = time.monotonic()
            mouths = self._publish("rsd/1", messages)
            while not is_stored(conn, self._boot, MESSAGES):
                time.sleep(POLL_S)
                if time.monotonic() > began + ROUND_TIMEOUT_S:
                    break
            took_s = time.monotonic() - began
            for mouth in mouths:
                mouth.wait()
            lost = MESSAGES * len(load.channels) - (count_readings(conn) - before)
            # The tables must not grow from round to round under what is measured.
            conn.execute("TRUNCATE meter_gateway.reading, meter_gateway.edge_message")
        return MESSAGES / took_s, payloads, lost


def is_stored(conn: psycopg.Connection, boot: int, count: int) -> bool:
    """Whether the last message of each gateway is in the ledger: cheap to ask, the rows are counted afterwards."""
    row = conn.execute(
        "SELECT count(*) FROM meter_gateway.edge_message WHERE boot = %s AND (edge, seq) IN"
        " (SELECT 'bench-' || n, %s::bigint - %s + n FROM generate_series(0, %s - 1) AS n)",
        (boot, count, GATEWAYS, GATEWAYS),
    ).fetchone()
    return row == (GATEWAYS,)


def count_readings(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM meter_gateway.reading").fetchone()
    return int(row[0]) if row else 0


@contextmanager
def bench_database(server_url: str) -> Iterator[str]:
    """A migrated database with one gateway and its meters."""
    name = f"raseed_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = with_database(server_url, name)
    try:
        asyncio.run(migrate(url))
        fill(url)
        yield url
    finally:
        with psycopg.connect(server_url, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def fill(url: str) -> None:
    """Put the gateway's site, its buses of 247 units and its meters into the books."""
    with psycopg.connect(url) as conn:
        conn.execute("SET search_path = meter_gateway")
        # 2,000 renewals of a site's configuration, a row version each, are not what is measured here.
        conn.execute("ALTER TABLE meter DISABLE TRIGGER meter_renews_site_config")
        for number in range(GATEWAYS):
            conn.execute(
                "INSERT INTO site (code, name_en, name_ar) VALUES (%s, 'Bench', 'قياس')", (gateway(number),)
            )
        conn.execute(
            "INSERT INTO bus (site_id, code, framer) SELECT id, 'tcp-' || n, 'tcp'"
            " FROM site, generate_series(0, %s / 247) AS n",
            (METERS // GATEWAYS,),
        )
        conn.cursor().executemany(
            "INSERT INTO meter (drn, commodity, model, link, profile, bus_id, unit_id)"
            " SELECT %s, 'electricity', 'E2', 'modbus', 'raseed-prepaid-e1', b.id, %s"
            " FROM bus b JOIN site s ON s.id = b.site_id WHERE s.code = %s AND b.code = %s",
            [
                (drn_of(n), n // GATEWAYS % 247 + 1, gateway(n % GATEWAYS), f"tcp-{n // GATEWAYS // 247}")
                for n in range(METERS)
            ],
        )
        conn.execute("ALTER TABLE meter ENABLE TRIGGER meter_renews_site_config")


@contextmanager
def database_server(folder: Path) -> Iterator[str]:
    """The server that RASEED_TEST_DATABASE_URL names, or the product's own with its usual settings."""
    given = os.environ.get("RASEED_TEST_DATABASE_URL")
    if given:
        yield given
        return
    postgres = EmbeddedPostgres(folder / "server", free_ports(1)[0])
    asyncio.run(postgres.prepare())
    server = subprocess.Popen(
        postgres.argv(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LC_ALL": "C"},
        preexec_fn=processes.die_with_parent(signal.SIGQUIT),
    )
    try:
        asyncio.run(postgres.wait_ready())
        yield with_database(postgres.connection_url, "postgres")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


def measure_messages(rounds: int, loads: Sequence[Load]) -> Lines:
    """Both sides of each load, round by round."""
    lines = Lines([], [], 0)
    with tempfile.TemporaryDirectory(prefix="raseed-bench-") as name:
        folder = Path(name)
        with database_server(folder) as server, bench_database(server) as url:
            town = Town(folder, url)
            with town.running():
                for load in loads:
                    both = pair(f"mosquitto_sub, {load.name}", f"headend, {load.name}", load.goal)
                    lost = size = 0
                    for _ in range(rounds):
                        rate, payloads, missing = town.our_round(load)
                        add(both, town.anchor_round(payloads), rate)
                        lost, size = lost + missing, len(payloads[-1])
                    sent = rounds * MESSAGES * len(load.channels)
                    lines.measured += both
                    lines.said.append(f"{load.name}, {size} bytes a message: {lost} of {sent} readings lost")
                    lines.lost += lost
                memory = memory_of(town.headend.pid).total / MIB
                lines.said.append(f"memory of the headend afterwards (PSS): {memory:.1f} MiB")
    return lines


def pair(anchor: str, ours: str, goal: float | None = GOAL) -> tuple[Measured, Measured]:
    """An anchor and what is held against it."""
    return Measured(Case(anchor, int)), Measured(Case(ours, int, anchor=anchor, goal=goal))


def add(both: tuple[Measured, Measured], anchor_rate: float, rate: float) -> None:
    """Note one round."""
    both[0].rates.append(anchor_rate)
    both[1].rates.append(rate)
    both[1].ratios.append(rate / anchor_rate)


def reading_rows(count: int) -> list[StoredReading]:
    """Readings of the fleet, one channel, a minute apart."""
    first = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    return [
        StoredReading(1 + n % METERS, "credit", first + timedelta(minutes=n // METERS), 50_000 - n, "valid")
        for n in range(count)
    ]


def copy_round(url: str, lines: Path, psql: Sequence[str]) -> float:
    """Rows per second of psql's own copy."""
    empty(url)
    order = "\\copy meter_gateway.reading (meter_id, channel, occurred_at, value, quality) from pstdin"
    began = time.monotonic()
    with lines.open("rb") as source:
        subprocess.run(
            [*psql, "-q", "-X", "-d", url, "-c", order], stdin=source, check=True, timeout=ROUND_TIMEOUT_S
        )
    took_s = time.monotonic() - began
    return ROWS / took_s


async def store_rows(url: str, rows: Sequence[StoredReading]) -> float:
    """Rows per second of our store, a commit for each batch."""
    async with await psycopg.AsyncConnection.connect(url) as conn:
        began = time.monotonic()
        for start in range(0, len(rows), ingest.BATCH):
            async with conn.transaction():
                await reading_store.insert_readings(conn, rows[start : start + ingest.BATCH])
        return len(rows) / (time.monotonic() - began)


def empty(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("TRUNCATE meter_gateway.reading")
        conn.execute("CHECKPOINT")


def find_psql() -> list[str]:
    """The client of this machine, or the one in the TimescaleDB root."""
    return ["psql"] if shutil.which("psql") else ["chroot", str(ROOT), "psql"]


def measure_rows(rounds: int) -> Lines:
    """Our store beside psql on a hypertable. Raises TimescaleMissing."""
    both = pair("psql \\copy, hypertable", "reading store, hypertable")
    rows = reading_rows(ROWS)
    lost = 0
    with (
        tempfile.TemporaryDirectory(prefix="raseed-bench-") as name,
        timescale_server() as server,
        bench_database(server) as url,
    ):
        path = Path(name) / "rows"
        with path.open("w", encoding="utf-8") as out:
            for row in rows:
                at = row.occurred_at.isoformat()
                out.write(f"{row.meter_id}\t{row.channel}\t{at}\t{row.value}\t{row.quality}\n")
        for _ in range(rounds):
            anchor = copy_round(url, path, find_psql())
            empty(url)
            add(both, anchor, asyncio.run(store_rows(url, rows)))
            with psycopg.connect(url) as conn:
                lost += ROWS - count_readings(conn)
    said = f"rows in batches of {ingest.BATCH}: {lost} of {rounds * ROWS} lost"
    return Lines(list(both), [said], lost)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and give the exit status: 1 when a goal is missed or something lost, 2 when it cannot be told."""
    rounds = int(arguments[0]) if arguments else ROUNDS
    print(
        f"ingest: {rounds} rounds, {os.cpu_count()} cores, wall clock, medians, ± half the distance of extremes\n"
    )
    faults = []
    try:
        for measure in (lambda: measure_messages(rounds, LOADS), lambda: measure_rows(rounds)):
            lines = measure()
            print(table(lines.measured), "", *lines.said, "", sep="\n", flush=True)
            faults += lines.faults
    except (CannotMeasure, TimescaleMissing) as reason:
        print(f"ingest: cannot be measured here: {reason}", file=sys.stderr)
        return 2
    print("all goals met" if not faults else f"not met: {', '.join(faults)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
