"""MQTT to committed rows beside mosquitto_sub, and readings beside `psql \\copy`: `make bench WHAT=ingest`.

Messages. A gateway's uplinks of about 150 bytes with one reading each (the most work for a reading), and with the
four channels of a poll, of 4,000 meters in turn. The publisher is Debian's `mosquitto_pub -l` at QoS 1, a process
of C that sends as fast as the broker takes them; each round sends 20,000 messages twice through one mosquitto:

- anchor: under another first word of the topic, to `mosquitto_sub` (QoS 1, a kept session, writing to a file);
- ours: to `raseed headend`, one process, which validates, commits (synchronous_commit on, fsync on) and
  acknowledges, then sends its receipts.

Both are timed alike, by the wall: from the start of the publisher until the last message was written by
mosquitto_sub, or is found committed by another connection. All four processes share the machine, as they would at a
site. Rounds take turns, so that a slow spell meets both; a ratio is that of one round, its median is held against the
goal. After each round of ours the rows are counted one by one: what is missing is lost.

Readings. 200,000 rows of 4,000 meters go into the empty hypertable once by `psql \\copy`, in one transaction and
without any check, and once by `reading_store.insert_readings`, in batches of the size of ingest's and a commit each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from meter_gateway import ingest, reading_store
from meter_gateway.message_key import to_millis
from meter_gateway.reading_store import StoredReading
from meter_gateway.topics import Channel, Reading, Uplink, encode
from raseed.migrate import migrate
from raseed.supervisor import role_argv
from tests.benchmarks.bench import ROUNDS, Case, Measured, table
from tests.conftest import with_database
from tests.soak.house import find_mosquitto, free_ports
from tests.soak.memory import measure as memory_of
from tests.timescale import ROOT, TimescaleMissing, timescale_server

MESSAGES = 20_000
METERS = 4_000
ROWS = 200_000
GOAL = 0.5
EDGE = "bench-1"
CHANNELS: tuple[Channel, ...] = ("counter", "credit", "load", "relay")
# A round that takes this long has lost a message.
ROUND_TIMEOUT_S = 120.0
POLL_S = 0.01
MIB = 1024 * 1024
CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_queued_messages 200000
max_inflight_messages 1000
"""


class CannotMeasure(Exception):
    """This machine lacks a part, and which."""


@dataclass(frozen=True)
class Load:
    """Messages with `channels` readings each."""

    name: str
    channels: tuple[Channel, ...]


LOADS = (Load("one reading", ("credit",)), Load("four channels", CHANNELS))


def drn_of(number: int) -> str:
    """The number of the meter that has this place in the fleet."""
    return f"{7_000_000_000 + number:011d}"


def uplinks(load: Load, boot: int, count: int, first_at: datetime) -> list[bytes]:
    """`count` messages of one gateway and boot: its meters in turn, each a second later than before."""
    start, payloads = to_millis(first_at), []
    for seq in range(count):
        turn, number = divmod(seq, METERS)
        at, drn = start + 1000 * turn, drn_of(number)
        values = {"counter": 1_000_000 + turn, "credit": 50_000 - turn, "load": 1200, "relay": 1}
        records = [Reading(drn, channel, at, values[channel]) for channel in load.channels]
        payloads.append(encode(Uplink(EDGE, boot, seq, at, list(records))))
    return payloads


class Town:
    """A broker, a database with the fleet in it, and one headend, all started for this bench."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder = folder
        self.database_url = database_url
        self.port = free_ports(1)[0]
        self._boot = 0

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
        payload = uplinks(LOADS[1], 0, METERS, now() - timedelta(days=2))
        self._boot = 1
        deadline = time.monotonic() + 30
        with psycopg.connect(self.database_url, autocommit=True) as conn:
            while not is_stored(conn, 0, METERS - 1):
                if time.monotonic() > deadline:
                    raise CannotMeasure("the headend stores nothing")
                self._publish("rsd/1", self._file(payload)).wait()
                time.sleep(0.5)

    def _client(self, name: str, *words: str) -> list[str]:
        return [name, "-h", "127.0.0.1", "-p", str(self.port), "-V", "5", "-q", "1", *words]

    def _file(self, payloads: Sequence[bytes]) -> Path:
        path = self.folder / "messages"
        path.write_bytes(b"".join(payload + b"\n" for payload in payloads))
        return path

    def _publish(self, contract: str, messages: Path) -> subprocess.Popen[bytes]:
        with messages.open("rb") as lines:
            return subprocess.Popen(
                self._client("mosquitto_pub", "-t", f"{contract}/up/{EDGE}/data", "-l"), stdin=lines
            )

    def anchor_round(self, payloads: Sequence[bytes]) -> float:
        """Messages per second through mosquitto_sub."""
        words = ("-c", "-i", "anchor", "-x", "600", "-t", "rsd/0/up/+/+")
        # The session first, so that no message comes before its subscription.
        subprocess.run(self._client("mosquitto_sub", "-E", *words), check=True, timeout=30)
        messages = self._file(payloads)
        with (self.folder / "heard").open("wb") as heard:
            ear = subprocess.Popen(
                self._client("mosquitto_sub", "-C", str(len(payloads)), *words), stdout=heard
            )
        time.sleep(0.2)
        began = time.monotonic()
        mouth = self._publish("rsd/0", messages)
        ear.wait(timeout=ROUND_TIMEOUT_S)
        took_s = time.monotonic() - began
        mouth.wait()
        if (self.folder / "heard").read_bytes().count(b"\n") != len(payloads):
            raise CannotMeasure("mosquitto_sub did not write what it was sent")
        return len(payloads) / took_s

    def our_round(self, load: Load) -> tuple[float, list[bytes], int]:
        """Messages per second into committed rows; the messages; how many readings are missing."""
        self._boot += 1
        payloads = uplinks(load, self._boot, MESSAGES, now() - timedelta(hours=self._boot))
        messages = self._file(payloads)
        with psycopg.connect(self.database_url, autocommit=True) as conn:
            before = count_readings(conn)
            began = time.monotonic()
            mouth = self._publish("rsd/1", messages)
            while not is_stored(conn, self._boot, MESSAGES - 1):
                time.sleep(POLL_S)
                if time.monotonic() > began + ROUND_TIMEOUT_S:
                    break
            took_s = time.monotonic() - began
            mouth.wait()
            lost = MESSAGES * len(load.channels) - (count_readings(conn) - before)
            # The tables must not grow from round to round under what is measured.
            conn.execute("TRUNCATE meter_gateway.reading, meter_gateway.edge_message")
        return MESSAGES / took_s, payloads, lost


def now() -> datetime:
    return datetime.now(UTC)


def is_stored(conn: psycopg.Connection, boot: int, seq: int) -> bool:
    query = "SELECT FROM meter_gateway.edge_message WHERE edge = %s AND boot = %s AND seq = %s"
    return conn.execute(query, (EDGE, boot, seq)).fetchone() is not None


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
        conn.execute("INSERT INTO site (code, name_en, name_ar) VALUES (%s, 'Bench', 'قياس')", (EDGE,))
        conn.execute(
            "INSERT INTO bus (site_id, code, framer) SELECT (SELECT id FROM site WHERE code = %s), 'tcp-' || n, 'tcp'"
            " FROM generate_series(0, %s / 247) AS n",
            (EDGE, METERS),
        )
        with conn.cursor().copy("COPY new_meter FROM STDIN") if False else contextlib.nullcontext():
            pass
        conn.execute("ALTER TABLE meter DISABLE TRIGGER meter_renews_site_config")
        conn.cursor().executemany(
            "INSERT INTO meter (drn, commodity, model, link, profile, bus_id, unit_id) VALUES"
            " (%s, 'electricity', 'E2', 'modbus', 'raseed-prepaid-e1', (SELECT id FROM bus WHERE code = %s), %s)",
            [(drn_of(n), f"tcp-{n // 247}", n % 247 + 1) for n in range(METERS)],
        )
        conn.execute("ALTER TABLE meter ENABLE TRIGGER meter_renews_site_config")
