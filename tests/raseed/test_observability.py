"""Metrics, health and readiness over HTTP, of a role that works, waits, hangs or has not begun."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from meter_gateway.vitals import BusVitals, GatewayVitals, HeadendVitals, IngestCounts, PoolVitals
from portal.vitals import PortalVitals, WorkerVitals
from raseed import observability
from raseed.metrics import to_metrics
from raseed.observability import Exporter

NOW_S = 1_790_000_000.0


def make_gateway(last_answer_s=NOW_S - 3, broker_connected=True):
    bus = BusVitals(
        "rtu-1", "rtu", last_answer_s, {"closed": 3, "open": 1}, 2, {"answered": 40, "no_answer": 3}
    )
    return GatewayVitals("site-1", broker_connected, {"bill": 5, "load": 7}, 12.5, {"load": 2}, False, (bus,))


@contextmanager
def exporting(vitals=None):
    """An exporter of a role whose loop turns in a thread of its own."""
    exporter = Exporter(
        host="127.0.0.1", port=free_port(), to_metrics=to_metrics, silent_s=120, clock=lambda: NOW_S
    )
    exporter.start()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    if vitals is not None:

        async def publish():
            exporter.publish(lambda: vitals)

        asyncio.run_coroutine_threadsafe(publish(), loop).result(5)
    try:
        yield exporter, loop
    finally:
        exporter.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def free_port():
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def get(exporter, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(text):
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_a_gateway_tells_its_queue_its_breakers_and_when_each_bus_answered():
    with exporting(make_gateway()) as (exporter, _):
        status, text = get(exporter, "/metrics")
        assert status == 200
        found = samples(text)
        bus = (("bus", "rtu-1"), ("site", "site-1"))
        assert found["raseed_ready", ()] == 1
        assert found["raseed_bus_last_answer_timestamp_seconds", bus] == NOW_S - 3
        assert found["raseed_bus_commands_waiting", bus] == 2
        assert found["raseed_bus_meters", (("breaker", "open"), *bus)] == 1
        assert found["raseed_bus_requests_total", (*bus[:1], ("outcome", "no_answer"), *bus[1:])] == 3
        assert found["raseed_gateway_outbox_messages", (("class", "bill"), ("site", "site-1"))] == 5
        assert found["raseed_gateway_dropped_total", (("class", "load"), ("site", "site-1"))] == 2
        assert found["process_resident_memory_bytes", ()] > 0
        assert get(exporter, "/ready") == (200, '{"status": "ok", "faults": []}')
        assert get(exporter, "/health")[0] == 200
        assert get(exporter, "/nowhere")[0] == 404


def test_a_bus_that_fell_silent_is_not_ready_and_says_why():
    with exporting(make_gateway(last_answer_s=NOW_S - 300)) as (exporter, _):
        status, text = get(exporter, "/ready")
        assert status == 503
        assert json.loads(text)["faults"] == ["bus rtu-1: no meter answered for 300 s"]
        assert samples(get(exporter, "/metrics")[1])["raseed_ready", ()] == 0
        assert get(exporter, "/health")[0] == 200  # alive all the same: a restart would not help


def test_a_gateway_without_its_broker_is_ready_since_readings_wait_on_disk():
    assert make_gateway(broker_connected=False).faults(NOW_S, silent_s=120) == []
    assert make_gateway(last_answer_s=None).faults(NOW_S, silent_s=120) == [
        "bus rtu-1: no meter has answered yet"
    ]


def test_a_headend_without_broker_or_database_is_not_ready():
    counts = IngestCounts(batches=2, messages=900, readings=3600, last_commit_s=NOW_S - 1, lag_s=0.4)
    well = HeadendVitals("headend-1", True, 12, counts, PoolVitals(3, 2, 0))
    assert well.faults(NOW_S, silent_s=120) == []
    with exporting(well) as (exporter, _):
        found = samples(get(exporter, "/metrics")[1])
        assert found["raseed_ingest_readings_total", (("name", "headend-1"),)] == 3600
        assert found["raseed_ingest_queue_messages", (("name", "headend-1"),)] == 12
        assert found["raseed_ingest_lag_seconds", (("name", "headend-1"),)] == 0.4
        assert found["raseed_pool_connections", (("role", "headend"),)] == 3
    waiting = IngestCounts(waits_since_s=NOW_S - 200)
    ill = HeadendVitals("headend-1", False, 0, waiting, PoolVitals(0, 0, 1))
    assert ill.faults(NOW_S, silent_s=120) == ["the broker is away", "the database is away for 200 s"]


def test_a_part_of_the_worker_that_stands_still_is_named():
    vitals = WorkerVitals({"messages": NOW_S - 1, "keys": NOW_S - 500}, {"keys": 4}, PoolVitals(4, 3, 0))
    assert vitals.faults(NOW_S, silent_s=120) == ["keys: no round for 500 s"]
    assert WorkerVitals({}, {}, PoolVitals(0, 0, 0)).faults(NOW_S, silent_s=120) == [
        "no part has ended a round yet"
    ]
    with exporting(vitals) as (exporter, _):
        assert samples(get(exporter, "/metrics")[1])["raseed_worker_falls_total", (("part", "keys"),)] == 4


def test_the_portal_counts_its_answers():
    with exporting(PortalVitals({"2xx": 40, "4xx": 3}, PoolVitals(2, 2, 0))) as (exporter, _):
        found = samples(get(exporter, "/metrics")[1])
        assert found["raseed_portal_answers_total", (("status", "4xx"),)] == 3


def test_before_a_role_works_it_is_alive_but_not_ready():
    with exporting() as (exporter, _):
        assert get(exporter, "/health")[0] == 200
        assert get(exporter, "/ready") == (503, '{"status": "not ok", "faults": ["starting"]}')
        assert get(exporter, "/metrics")[0] == 200


def test_a_loop_that_hangs_is_dead_to_those_who_ask(monkeypatch):
    monkeypatch.setattr(observability, "ANSWER_S", 0.05)
    with exporting(make_gateway()) as (exporter, loop):
        free = threading.Event()
        loop.call_soon_threadsafe(free.wait)
        assert get(exporter, "/health")[0] == 503
        free.set()
        end = time.monotonic() + 10
        while get(exporter, "/health")[0] != 200:
            assert time.monotonic() < end


def test_without_a_port_nobody_listens():
    exporter = Exporter(host="127.0.0.1", port=0, to_metrics=to_metrics, silent_s=120)
    exporter.start()
    assert exporter.port == 0
    exporter.stop()
