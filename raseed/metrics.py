"""The vitals of each role as Prometheus metrics: names, units and labels in one place. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from meter_gateway.vitals import BusVitals, GatewayVitals, HeadendVitals, PoolVitals, Vitals
from portal.vitals import PortalVitals, WorkerVitals

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Labels = Mapping[str, str]


def to_metrics(vitals: Vitals) -> Iterator[Metric]:
    """Yield the metrics of a role's vitals; a role without metrics of its own has none."""
    if isinstance(vitals, GatewayVitals):
        yield from _gateway(vitals)
    elif isinstance(vitals, HeadendVitals):
        yield from _headend(vitals)
    elif isinstance(vitals, WorkerVitals):
        yield from _worker(vitals)
    elif isinstance(vitals, PortalVitals):
        yield _by(
            CounterMetricFamily("raseed_portal_answers", "pages answered, by status", labels=["status"]),
            {},
            dict(vitals.answers),
        )
        yield from _pool("portal", vitals.pool)


def _gauge(name: str, text: str, labels: Labels, value: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _counter(name: str, text: str, labels: Labels, value: float) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _by(
    family: GaugeMetricFamily | CounterMetricFamily, fixed: Labels, values: Mapping[str, float]
) -> Metric:
    for key, value in sorted(values.items()):
        family.add_metric([*fixed.values(), key], value)
    return family


def _gateway(vitals: GatewayVitals) -> Iterator[Metric]:
    site = {"site": vitals.site}
    yield _gauge(
        "raseed_broker_connected", "1 while the broker has us", {"role": "gateway"}, vitals.broker_connected
    )
    yield _by(
        GaugeMetricFamily(
            "raseed_gateway_outbox_messages",
            "messages on disk that no receipt names yet",
            labels=["site", "class"],
        ),
        site,
        dict(vitals.outbox),
    )
    yield _gauge(
        "raseed_gateway_outbox_oldest_seconds", "age of the oldest of them", site, vitals.outbox_oldest_s
    )
    yield _by(
        CounterMetricFamily(
            "raseed_gateway_dropped",
            "values given up by the quota of their class",
            labels=["site", "class"],
        ),
        site,
        dict(vitals.dropped),
    )
    yield from _buses(site, vitals.buses)


def _buses(site: Labels, buses: tuple[BusVitals, ...]) -> Iterator[Metric]:
    labels = ["site", "bus"]
    answered = GaugeMetricFamily(
        "raseed_bus_last_answer_timestamp_seconds", "when a meter of the bus last answered", labels=labels
    )
    waiting = GaugeMetricFamily("raseed_bus_commands_waiting", "orders that wait for the bus", labels=labels)
    meters = GaugeMetricFamily(
        "raseed_bus_meters", "meters of the bus by the state of their breaker", labels=[*labels, "breaker"]
    )
    requests = CounterMetricFamily(
        "raseed_bus_requests", "requests on the bus by outcome", labels=[*labels, "outcome"]
    )
    for bus in buses:
        here = {**site, "bus": bus.code}
        if bus.last_answer_s is not None:
            answered.add_metric(list(here.values()), bus.last_answer_s)
        waiting.add_metric(list(here.values()), bus.commands_waiting)
        _by(meters, here, dict(bus.breakers))
        _by(requests, here, dict(bus.requests))
    yield from (answered, waiting, meters, requests)


def _headend(vitals: HeadendVitals) -> Iterator[Metric]:
    name = {"name": vitals.name}
    counts = vitals.counts
    yield _gauge(
        "raseed_broker_connected", "1 while the broker has us", {"role": "headend"}, vitals.broker_connected
    )
    yield _gauge("raseed_ingest_queue_messages", "messages received and not yet stored", name, vitals.queue)
    for short, text, value in (
        ("messages", "messages stored, receipted and acknowledged", counts.messages),
        ("readings", "readings that were new", counts.readings),
        ("events", "events stored", counts.events),
        ("dead_letters", "messages or records parked", counts.dead_letters),
        ("batches", "transactions of ingest", counts.batches),
        ("retries", "attempts to store a batch that failed because the database was away", counts.retries),
        ("store_seconds", "time spent storing", counts.store_s),
    ):
        yield _counter(f"raseed_ingest_{short}", text, name, value)
    yield _gauge(
        "raseed_ingest_lag_seconds",
        "from sent to stored, of the newest message that was not queued at its edge",
        name,
        counts.lag_s,
    )
    if counts.last_commit_s is not None:
        yield _gauge(
            "raseed_ingest_last_commit_timestamp_seconds",
            "when a batch was last stored",
            name,
            counts.last_commit_s,
        )
    yield from _pool("headend", vitals.pool)


def _worker(vitals: WorkerVitals) -> Iterator[Metric]:
    yield _by(
        GaugeMetricFamily(
            "raseed_worker_last_round_timestamp_seconds",
            "when a part of the worker last ended a round without a fault",
            labels=["part"],
        ),
        {},
        dict(vitals.rounds),
    )
    yield _by(
        CounterMetricFamily("raseed_worker_falls", "how often a part fell and began again", labels=["part"]),
        {},
        dict(vitals.falls),
    )
    yield from _pool("worker", vitals.pool)


def _pool(role: str, pool: PoolVitals) -> Iterator[Metric]:
    labels = {"role": role}
    yield _gauge("raseed_pool_connections", "connections to the database", labels, pool.size)
    yield _gauge("raseed_pool_idle", "of these not in use", labels, pool.idle)
    yield _gauge("raseed_pool_waiting", "callers that wait for a connection", labels, pool.waiting)
