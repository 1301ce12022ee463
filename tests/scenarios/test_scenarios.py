"""Black box: a script of faults goes in, and rows and events in the database must come out as the script says.

A script's [expect] may hold: `complete` meters (each reading that a radio meter made is stored once with its value,
and nothing that it did not say), `honest` ones (every stored reading of a wired meter was on its wire just then),
`believed` (the same for counters that are not marked suspect), `fresh` (told again after its last fault), `dated`
(no reading from before the house was built), and counts of `rows`, `events`, dead `letters`, and what `orders` become.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from firmware_sim.faults import FAULTS
from firmware_sim.journal import each_meter, list_answers
from firmware_sim.scenario import DEEDS, parse_scenario
from meter_gateway import command
from raseed.scenario_tool import play
from tests.conftest import with_database
from tests.scenarios.house import House
from tests.soak.compare import POLL_TAKES_MS

SCRIPTS = {
    path.stem: parse_scenario(path.read_text("utf-8"))
    for path in sorted(Path(__file__).parent.glob("*.toml"))
}
EXPECTATIONS = {
    "within_s",
    "complete",
    "honest",
    "believed",
    "fresh",
    "dated",
    "rows",
    "events",
    "letters",
    "orders",
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
pytestmark = pytest.mark.demo


def ms(at: datetime) -> int:
    return round((at - EPOCH) / timedelta(milliseconds=1))


class Played:
    """All scripts but those that stop the broker, started at once on their own meters."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.built_at = datetime.now(UTC) - timedelta(minutes=5)
        self.began: dict[str, float] = {}
        self.codes: dict[str, int] = {}
        self.orders: dict[str, list[int]] = {}
        self._threads: dict[str, threading.Thread] = {}
        for name, script in SCRIPTS.items():
            if not breaks_broker(script):
                self.start(name)

    def start(self, name: str) -> None:
        self.began[name] = time.time()
        self._threads[name] = threading.Thread(target=self._play, args=(name,), daemon=True)
        self._threads[name].start()

    def _play(self, name: str) -> None:
        lines: list[str] = []
        self.codes[name] = play(SCRIPTS[name], self.house.control, lines.append)

    def order_all(self) -> None:
        asyncio.run(self._order_all())

    async def _order_all(self) -> None:
        now = datetime.now(UTC)
        async with await psycopg.AsyncConnection.connect(self.house.database_url) as conn:
            for name, script in SCRIPTS.items():
                for wanted in script.expect.get("orders", []):
                    made = await command.order_command(
                        conn,
                        meter_id=self.house.meter_id(wanted["meter"]),
                        kind=wanted["kind"],
                        argument=wanted.get("argument", ""),
                        idempotency_key=uuid.uuid4().hex,
                        requested_by="test",
                        now=now,
                        expires_at=now + timedelta(minutes=5),
                    )
                    self.orders.setdefault(name, []).append(made.id)

    def finish(self, name: str) -> int:
        self._threads[name].join(timeout=60)
        return self.codes[name]


def breaks_broker(script) -> bool:
    return any(step.deed == "broker_loss" for step in script.steps)


@pytest.fixture(scope="module")
def played(server_url, template_database, tmp_path_factory):
    name = f"raseed_scenarios_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(template_database)
            )
        )
    house = House(tmp_path_factory.mktemp("scenarios"), with_database(server_url, name))
    try:
        house.start()
        made = Played(house)
        time.sleep(0.5)  # the faults have begun before the orders go out
        made.order_all()
        yield made
    finally:
        house.stop()
        with psycopg.connect(server_url, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


class Judge:
    """Complaints of one script against what stands in the database now; none when all is as expected."""

    def __init__(self, played: Played, name: str) -> None:
        self.house, self.played, self.name = played.house, played, name
        self.script = SCRIPTS[name]

    def complaints(self) -> list[str]:
        found = self.house.dead()
        for kind in ("complete", "honest", "believed", "fresh", "dated"):
            for selector in self.script.expect.get(kind, []):
                complaint = getattr(self, kind)(selector)
                found += [f"{selector} is not {kind}: {complaint}"] if complaint else []
        for row in self.script.expect.get("rows", []):
            found += self.counted(row, self._rows(row))
        for event in self.script.expect.get("events", []):
            found += self.counted(event, self._events(event))
        for letter in self.script.expect.get("letters", []):
            query = "SELECT count(*) FROM meter_gateway.dead_letter WHERE topic LIKE %s"
            found += self.counted(
                letter, self.house.ask(query, f"%/{self.house.drn(letter['meter'])}/%")[0][0]
            )
        for wanted, number in zip(
            self.script.expect.get("orders", []), self.played.orders.get(self.name, []), strict=True
        ):
            found += self.order(wanted, number)
        return found

    @staticmethod
    def counted(wanted: dict, count: int) -> list[str]:
        low, high = wanted.get("min", 0), wanted.get("max", 10**9)
        return [] if low <= count <= high else [f"{wanted}: there are {count}"]

    def _rows(self, row: dict) -> int:
        query = "SELECT count(*) FROM meter_gateway.v_reading WHERE meter_id = %s AND channel = %s AND quality = %s"
        return self.house.ask(query, self.house.meter_id(row["meter"]), row["channel"], row["quality"])[0][0]

    def _events(self, event: dict) -> int:
        query = "SELECT count(*) FROM meter_gateway.v_meter_event WHERE meter_id = %s AND code = %s"
        return self.house.ask(query, self.house.meter_id(event["meter"]), event["code"])[0][0]

    def _stored(self, selector: str, *, believed: bool = False) -> list[tuple[str, int, int]]:
        query = "SELECT channel, occurred_at, value, quality FROM meter_gateway.v_reading WHERE meter_id = %s"
        return [
            (channel, ms(at), value)
            for channel, at, value, quality in self.house.ask(query, self.house.meter_id(selector))
            if not believed or (channel == "counter" and quality == "valid")
        ]

    def complete(self, selector: str) -> str:
        until = ms(datetime.now(UTC)) - 6_000  # what was said just now is still under way
        drn = self.house.drn(selector)
        made = next((made for number, made in each_meter(self.house.journal_file) if number == drn), [])
        said = {(one.reading.channel, one.reading.at): one.reading.value for one in made}
        rows = self._stored(selector)
        stored = {(channel, at): value for channel, at, value in rows}
        missing = [key for key, value in said.items() if key[1] <= until and stored.get(key) != value]
        strange = [key for key in stored if key not in said]
        if not said or missing or strange or len(stored) != len(rows):
            return f"{len(missing)} of {len(said)} missing, {len(strange)} never said"
        return ""

    def honest(self, selector: str) -> str:
        return self._on_the_wire(selector, self._stored(selector))

    def believed(self, selector: str) -> str:
        return self._on_the_wire(selector, self._stored(selector, believed=True))

    def _on_the_wire(self, selector: str, stored: list[tuple[str, int, int]]) -> str:
        answers = list_answers(self.house.journal_file, self.house.drn(selector))
        times = [answer.at_ms for answer in answers]
        for channel, at, value in stored:
            near = answers[bisect_left(times, at - POLL_TAKES_MS) : bisect_right(times, at)]
            if not any(answer.values.get(channel) == value for answer in near):
                return f"{channel} = {value} at {at} was never on the wire"
        return "" if stored else "nothing is stored"

    def fresh(self, selector: str) -> str:
        steps = [step for step in self.script.steps if step.arguments.get("meter", selector) == selector]
        end_s = max(step.at_s + step.arguments.get("seconds", 0) for step in steps) if steps else 0
        since = (self.played.began[self.name] + end_s) * 1000
        return "" if any(at > since for _, at, _ in self._stored(selector)) else "silent since its last fault"

    def dated(self, selector: str) -> str:
        early = [at for _, at, _ in self._stored(selector) if at < ms(self.played.built_at)]
        return f"{len(early)} readings from before there was a house" if early else ""

    def order(self, wanted: dict, number: int) -> list[str]:
        state, result = self.house.ask(
            "SELECT state, result FROM meter_gateway.v_meter_command WHERE id = %s", number
        )[0]
        found = [] if state == wanted["state"] else [f"{wanted}: {state} {result}"]
        ran = self.house.control.get(f"/meters/{self.house.drn(wanted['meter'])}/store")[
            "commands_run"
        ].count(number)
        return [*found, f"{wanted} ran {ran} times"] if ran > 1 else found


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_leaves_the_rows_and_events_that_it_expects(played, name):
    script = SCRIPTS[name]
    if breaks_broker(script):
        played.start(name)
        step = next(step for step in script.steps if step.deed == "broker_loss")
        time.sleep(step.at_s)
        played.house.broker.kill()
        time.sleep(step.arguments["seconds"])
        played.house.broker.start()
    assert played.finish(name) == 0, "a deed was refused"
    judge = Judge(played, name)
    complaints = ["nobody looked"]

    def good() -> bool:
        complaints[:] = judge.complaints()
        return not complaints

    House.wait(good, script.expect.get("within_s", 15))
    assert complaints == []


def test_every_script_says_what_it_expects():
    for name, script in SCRIPTS.items():
        assert set(script.expect) - {"within_s"}, name
        assert set(script.expect) <= EXPECTATIONS, name


def test_every_named_fault_and_deed_of_the_wire_is_played():
    """Faults that checks of readings over days look for are tried where those checks are."""
    elsewhere = {"leak", "reverse_flow", "clock_slow", "stuck_relay", "tamper"}
    steps = [step for script in SCRIPTS.values() for step in script.steps]
    assert {step.arguments["name"] for step in steps if step.deed == "fault"} == set(FAULTS) - elsewhere
    assert {step.deed for step in steps} >= set(DEEDS) - {"keypad", "burn", "button", "node_power"}
