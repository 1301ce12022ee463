"""The names of metrics: dashboard, alerts and the operator's page name those that exist, and no other."""

import json
import re
from pathlib import Path

import pytest

from meter_gateway.vitals import BusVitals, GatewayVitals, HeadendVitals, IngestCounts, PoolVitals
from portal.vitals import PortalVitals, WorkerVitals
from raseed.metrics import to_metrics

TOP = Path(__file__).resolve().parents[2]
POOL = PoolVitals(3, 2, 0)
ALL = (
    GatewayVitals(
        "s",
        True,
        {"load": 1},
        1.0,
        {"load": 1},
        False,
        (BusVitals("b", "rtu", 1.0, {"closed": 1}, 0, {"answered": 1}),),
    ),
    HeadendVitals("h", True, 0, IngestCounts(last_commit_s=1.0), POOL),
    WorkerVitals({"keys": 1.0}, {"keys": 1}, POOL),
    PortalVitals({"2xx": 1}, POOL),
)
# Of every Python process, and Prometheus' own.
GIVEN = {"up", "process_resident_memory_bytes", "process_cpu_seconds_total"}
WORD = re.compile(r"\b(?:raseed|process)_[a-z_]+\b|\bup\b(?=\{)")


def known_names():
    names = {one.name for vitals in ALL for family in to_metrics(vitals) for one in family.samples}
    return names | {"raseed_ready"}


def expressions_of_dashboard():
    board = json.loads((TOP / "deploy/grafana/raseed.json").read_text("utf-8"))
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def expressions_of_alerts():
    text = (TOP / "deploy/prometheus/alerts.yml").read_text("utf-8")
    return re.findall(r"expr: (?:>-\n)?((?:.|\n)*?)\n +(?:for|labels):", text)


@pytest.mark.parametrize("expressions", [expressions_of_dashboard, expressions_of_alerts])
def test_dashboard_and_alerts_name_only_what_exists(expressions):
    found = [set(WORD.findall(one)) for one in expressions()]
    assert len(found) > 10
    for names in found:
        assert names
        assert names <= known_names() | GIVEN


def test_each_metric_is_on_the_operators_page_and_none_besides():
    page = (TOP / "docs/operations.md").read_text("utf-8").split("## Metrics")[1]
    told = set()
    for line in page.splitlines():
        cells = line.split("|")
        if len(cells) < 4:
            continue
        first = ""
        for name in re.findall(r"`(\w+)`", cells[1]):
            if name.startswith("raseed_"):
                first = first or name
                told.add(name)
            else:  # `_readings_total` beside `raseed_ingest_messages_total`
                told.add("raseed_ingest" + name)
    assert told == known_names()


def test_each_alert_is_explained():
    alerts = re.findall(r"alert: (\w+)", (TOP / "deploy/prometheus/alerts.yml").read_text("utf-8"))
    page = (TOP / "docs/operations.md").read_text("utf-8")
    explained = re.findall(r"^\| ([A-Z]\w+) \|", page, re.MULTILINE)
    assert alerts == explained


def test_panels_have_a_title_a_description_and_a_place():
    board = json.loads((TOP / "deploy/grafana/raseed.json").read_text("utf-8"))
    places = set()
    for panel in board["panels"]:
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["description"]
        at = (panel["gridPos"]["x"], panel["gridPos"]["y"])
        assert at not in places
        places.add(at)
