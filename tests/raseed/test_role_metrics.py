"""Each role, started by its command, answers for itself: alive at once, ready when it can work, with figures."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raseed import processes
from tests.firmware_sim.parts import VENDING_KEYS
from tests.meter_gateway.conftest import Broker, free_port
from tests.meter_gateway.roles import until
from token_engine.software_vault import write_key_file

TOP = Path(__file__).resolve().parents[2]


class Role:
    """A role of the command line with a metrics port of its own."""

    def __init__(self, *words, **env):
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raseed", *words],
            cwd=TOP,
            env={**os.environ, **env, "RASEED_METRICS_PORT": str(self.port), "RASEED_LOG_FORMAT": "json"},
            stderr=subprocess.PIPE,
            # A test that fails leaves nobody behind.
            preexec_fn=processes.die_with_parent(signal.SIGKILL),
        )

    def ask(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    async def is_ready(self):
        return (await asyncio.to_thread(self.ask, "/ready"))[0] == 200

    def samples(self):
        return {
            (one.name, *(one.labels[name] for name in sorted(one.labels))): one.value
            for family in text_string_to_metric_families(self.ask("/metrics")[1])
            for one in family.samples
        }

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        _, told = self.process.communicate(timeout=20)
        return [json.loads(line) for line in told.decode().splitlines()]


@pytest.fixture
def broker(tmp_path):
    running = Broker(tmp_path)
    yield running
    running.kill()


async def test_a_headend_is_ready_when_its_broker_is_there(database_url, broker):
    role = Role("headend", "--name", "headend-7", DATABASE_URL=database_url, MQTT_URL=broker.url)

    async def is_up():
        return (await asyncio.to_thread(role.ask, "/ready"))[0] == 503

    await until(is_up)
    assert "the broker is away" in role.ask("/ready")[1]
    assert role.ask("/health")[0] == 200
    broker.start()
    await until(role.is_ready)
    found = role.samples()
    assert found["raseed_broker_connected", "headend"] == 1
    assert found["raseed_ingest_messages_total", "headend-7"] == 0
    assert found["raseed_pool_connections", "headend"] >= 1
    lines = role.end()
    assert {line["role"] for line in lines} == {"headend"}
    assert "headend-7 is down" in [line["event"] for line in lines]


async def test_a_gateway_tells_its_outbox_and_waits_for_no_broker(tmp_path):
    site = tmp_path / "site.toml"
    site.write_text('site = "site-1"\n[[bus]]\ncode = "tcp-1"\nframer = "tcp"\naddress = "127.0.0.1:9"\n')
    role = Role(
        "gateway",
        "run",
        "--config",
        str(site),
        MQTT_URL="mqtt://127.0.0.1:9",
        RASEED_STATE_DIR=str(tmp_path),
    )
    await until(role.is_ready)
    found = role.samples()
    assert found["raseed_broker_connected", "gateway"] == 0
    assert found["raseed_gateway_outbox_messages", "billing", "site-1"] == 0
    assert found["raseed_bus_meters", "closed", "tcp-1", "site-1"] == 0
    role.end()


async def test_the_worker_tells_when_each_part_last_ended_a_round(database_url, tmp_path):
    write_key_file(tmp_path / "keys.json", VENDING_KEYS)
    role = Role(
        "worker",
        DATABASE_URL=database_url,
        RASEED_VAULT_FILE=str(tmp_path / "keys.json"),
        RASEED_SECRET_KEY="x" * 20,
        RASEED_PROVIDER_URL="http://127.0.0.1:9",
        RASEED_PROVIDER_SECRET="y" * 20,
    )

    async def has_ended_a_round():
        # Ready before its first round is over.
        return ("raseed_worker_last_round_timestamp_seconds", "messages") in await asyncio.to_thread(
            role.samples
        )

    await until(has_ended_a_round)
    assert role.samples()["raseed_worker_last_round_timestamp_seconds", "messages"] > 1_700_000_000
    role.end()
