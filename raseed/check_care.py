"""The check's steps about people: an outage from last gasp to restoration, a ticket from open to resolved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psycopg

from raseed.check_town import CheckFailed, CheckTown, until

if TYPE_CHECKING:
    from firmware_sim.town import TownCustomer, TownMeter
    from raseed.check import Step

OWN_KEY = 2  # KT of a unique decoder key (DUTK)
MUSCAT = ZoneInfo("Asia/Muscat")
WORKDAYS = {6, 0, 1, 2, 3}  # Sunday to Thursday, as Python numbers them
CLOSING = time(14, 30)
OUTAGE_LIMIT_S = 25.0  # three seconds of patience, and three silent polls of each Modbus meter


class CareSteps:
    """Steps of outage and ticket."""

    def __init__(self, town: CheckTown) -> None:
        self.town = town
        self._meter = town.meter("electricity", "mqtt")
        node = town.town.node_of(self._meter)
        if node is None:
            raise CheckFailed(f"meter {self._meter.drn} hangs at no transformer")
        self._node = node.code
        self._outage_id = 0

    def steps(self) -> Sequence[tuple[str, Step]]:
        """Name and coroutine of each step."""
        return (
            ("no supply: used up credit, and a relay opened by order, are told apart", self._told_apart),
            ("a transformer fails: last gasps and silence become one probable outage on it", self._raised),
            ("its subscribers are told of the outage, their neighbours are not", self._explained),
            ("a new no-supply contact follows the outage", self._ticket_follows),
            ("supply comes back: closed for the meters that were seen alive", self._restored),
            ("a complaint at the desk: reference, due time, assigned, answered, resolved", self._complaint),
            ("an engineer installs a meter, reads it and sees a test token accepted", self._install),
        )

    async def _reason(self, meter: TownMeter) -> str:
        from portal.outages.supply import explain_supply

        async with await psycopg.AsyncConnection.connect(self.town.demo.database_url) as conn:
            rows = await (
                await conn.execute("SELECT meter_id FROM meter_gateway.v_meter WHERE drn = %s", (meter.drn,))
            ).fetchone()
            if rows is None:
                raise CheckFailed(f"meter {meter.drn} is unknown")
            answer = await explain_supply(conn, meter_id=rows[0], now=datetime.now(UTC))
            return str(answer.reason)

    async def _until_reason(self, meter: TownMeter, reason: str, limit_s: float = 15.0) -> None:
        seen = ""

        async def said() -> bool:
            nonlocal seen
            seen = await self._reason(meter)
            return seen == reason

        await until(said, lambda: f"meter {meter.drn} is explained by {seen}, not {reason}", limit_s)
        owner = self.town.owner(meter)
        if owner is not None:
            visitor = await self.town.subscriber(owner)
            for language in ("ar", "en"):
                await visitor.get(f"/my/meters/{meter.drn}/supply?lang={language}")

    async def _told_apart(self) -> str:
        from meter_gateway.command import order_command

        town = self.town
        poor, switched = town.meter("electricity", "mqtt", skip=5), town.meter("electricity", "tcp", skip=4)
        await town.control(f"/meters/{poor.drn}/burn", units=(await town.store(poor))["credit"] // 1000 + 1)
        now = datetime.now(UTC)
        async with await psycopg.AsyncConnection.connect(town.demo.database_url) as conn:
            row = await (
                await conn.execute(
                    "SELECT meter_id FROM meter_gateway.v_meter WHERE drn = %s", (switched.drn,)
                )
            ).fetchone()
            if row is None:
                raise CheckFailed(f"meter {switched.drn} is unknown")
            await order_command(
                conn,
                meter_id=row[0],
                kind="relay_open",
                argument="",
                idempotency_key="check:relay-open",
                requested_by="check",
                now=now,
                expires_at=now + timedelta(minutes=5),
            )
        await self._until_reason(poor, "NO_CREDIT")
        await self._until_reason(switched, "RELAY_OPEN_BY_ORDER")
        return ""

    async def _raised(self) -> str:
        await self.town.control(f"/network/{self._node}/power", on=False)
        found: list[dict[str, Any]] = []

        async def raised() -> bool:
            nonlocal found
            found = await self.town.query(
                "SELECT o.id, o.state, o.start_source, n.code FROM portal.outage o JOIN meter_gateway.network_node n "
                "ON n.id = o.network_node_id WHERE o.state IN ('probable', 'confirmed')"
            )
            return bool(found)

        took = await until(raised, lambda: f"{self._node} is dark and no outage is known", OUTAGE_LIMIT_S)
        if len(found) != 1 or found[0]["code"] != self._node:
            raise CheckFailed(f"{self._node} is dark, the outages known are {[row['code'] for row in found]}")
        if found[0]["start_source"] != "last_gasp":
            raise CheckFailed(f"meters gasped, and the outage was found by {found[0]['start_source']}")
        self._outage_id = int(found[0]["id"])
        return f"in {took:.1f} s"

    async def _explained(self) -> str:
        await self._until_reason(self._meter, "OUTAGE")
        neighbour = next(
            meter
            for meter in self.town.town.installed
            if meter.commodity == "electricity"
            and meter.link == "mqtt"
            and self._node_of(meter) != self._node
        )
        if await self._reason(neighbour) == "OUTAGE":
            raise CheckFailed(f"meter {neighbour.drn} hangs elsewhere and is told of the outage")
        return ""

    def _node_of(self, meter: TownMeter) -> str:
        node = self.town.town.node_of(meter)
        return node.code if node else ""

    async def _ticket_follows(self) -> str:
        visitor = await self.town.subscriber(self._owner())
        page = await visitor.get("/my/tickets/new?kind=no_supply&lang=en")
        page = await visitor.submit(
            page,
            "/my/tickets/new",
            kind="no_supply",
            drn=self._meter.drn,
            subject="No power",
            body="Since just now.",
        )
        rows = await self.town.query(
            "SELECT reference, outage_id FROM portal.ticket WHERE kind = 'no_supply' ORDER BY id DESC LIMIT 1"
        )
        if not rows or rows[0]["outage_id"] != self._outage_id:
            raise CheckFailed(f"the ticket does not follow outage {self._outage_id}: {rows}")
        return str(rows[0]["reference"])

    def _owner(self) -> TownCustomer:
        owner = self.town.owner(self._meter)
        if owner is None:
            raise CheckFailed(f"nobody owns meter {self._meter.drn}")
        return owner

    async def _restored(self) -> str:
        await self.town.control(f"/network/{self._node}/power", on=True)
        rows: list[dict[str, Any]] = []

        async def closed() -> bool:
            nonlocal rows
            rows = await self.town.query(
                "SELECT o.state, m.link, om.restored_at, st.last_seen_at, om.out_at FROM portal.outage o "
                "JOIN portal.outage_meter om ON om.outage_id = o.id JOIN meter_gateway.meter m ON m.id = om.meter_id "
                "LEFT JOIN meter_gateway.meter_state st ON st.meter_id = m.id WHERE o.id = %s",
                self._outage_id,
            )
            return bool(rows) and rows[0]["state"] == "restored"

        took = await until(
            closed, lambda: f"the outage stays {rows[0]['state'] if rows else 'unknown'}", OUTAGE_LIMIT_S
        )
        for row in rows:
            if row["restored_at"] is not None and (row["last_seen_at"] or row["out_at"]) < row["out_at"]:
                raise CheckFailed("a meter that nobody has seen alive counts as restored")
        await self._until_reason(self._meter, "OK")
        return f"in {took:.1f} s, {sum(row['restored_at'] is not None for row in rows)} meters seen alive"

    async def _complaint(self) -> str:
        town, owner = self.town, self._owner()
        agent = await town.staff("agent")
        found = await agent.get(f"/desk?q={owner.phone.removeprefix('+968')}&lang=en")
        page = found if "/desk/customers/" in found.url else await agent.get(found.link("/desk/customers/"))
        page = await agent.submit(
            page,
            "/tickets",
            kind="complaint",
            channel="phone",
            subject="Wrong name",
            body="My name is misspelt.",
        )
        reference = (await town.query("SELECT reference FROM portal.ticket ORDER BY id DESC LIMIT 1"))[0][
            "reference"
        ]
        if reference not in page.body:
            raise CheckFailed(f"the agent does not see the reference {reference}")
        await self._expect_due(reference)
        page = await agent.submit(page, f"{reference}/assign")
        page = await agent.submit(page, f"{reference}/note", text="Only colleagues read this.")
        page = await agent.submit(page, f"{reference}/reply", text="We correct it today.")
        page = await agent.submit(page, f"{reference}/resolve", text="Your name is corrected.")
        mine = await (await town.subscriber(owner)).get(f"/my/tickets/{reference}?lang=ar")
        if "Your name is corrected." not in mine.body or "Only colleagues" in mine.body:
            raise CheckFailed("the customer's timeline lacks the answer or shows the note")
        rows = await town.query(
            "SELECT t.state, bool_and(c.met_at IS NOT NULL) AS met FROM portal.ticket t JOIN portal.clock c "
            "ON c.ticket_id = t.id WHERE t.reference = %s GROUP BY t.state",
            reference,
        )
        if rows != [{"state": "resolved", "met": True}]:
            raise CheckFailed(f"the ticket is {rows}")
        return str(reference)

    async def _expect_due(self, reference: str) -> None:
        """Ten working days, Sunday to Thursday, counted here by hand and not by the platform's own calendar."""
        rows = await self.town.query(
            "SELECT c.due_at, t.created_at FROM portal.clock c JOIN portal.ticket t ON t.id = c.ticket_id "
            "WHERE t.reference = %s AND c.kind = 'resolution'",
            reference,
        )
        local = rows[0]["created_at"].astimezone(MUSCAT)
        day = local.date()
        while day.weekday() not in WORKDAYS or (day == local.date() and local.time() >= CLOSING):
            day += timedelta(days=1)
        for _working_day in range(10):
            day += timedelta(days=1)
            while day.weekday() not in WORKDAYS:
                day += timedelta(days=1)
        expected = datetime.combine(day, CLOSING, MUSCAT)
        if rows[0]["due_at"] != expected:
            raise CheckFailed(f"{reference} is due {rows[0]['due_at']}, by hand it is {expected}")

    async def _install(self) -> str:
        town = self.town
        spare = next(meter for meter in town.town.spares if meter.link == "mqtt")
        engineer = await town.staff("engineer")
        page = await engineer.get(f"/field/meters/{spare.drn}/install?lang=en")
        point = next(found["value"] for found in page.attributes if found.get("name") == "usage_point_id")
        page = await engineer.submit(page, f"{spare.drn}/install/preview", usage_point_id=point)
        page = await engineer.submit(page, f"{spare.drn}/install")
        page = await engineer.get(f"/field/meters/{spare.drn}?lang=en")
        for what in ("read", "test"):
            page = await engineer.get(f"/field/meters/{spare.drn}?lang=en")
            await engineer.submit(page, f"{spare.drn}/{what}")
        rows: list[dict[str, Any]] = []

        async def both_done() -> bool:
            nonlocal rows
            rows = await town.query(
                "SELECT c.kind, c.state, i.kt FROM meter_gateway.meter_command c JOIN meter_gateway.meter m "
                "ON m.id = c.meter_id JOIN billing.sts_identity i ON i.meter_id = m.id "
                "WHERE m.drn = %s ORDER BY c.kind",
                spare.drn,
            )
            # From the shelf it came with its stock key (KT 1); it has its own (KT 2) when the meter says so.
            proven = [row for row in rows if row["state"] == "VERIFIED" and row["kt"] == OWN_KEY]
            return len(proven) == len(rows) and {"read_now", "token"} <= {row["kind"] for row in rows}

        await until(both_done, lambda: f"reading, test token and own key are {rows}")
        return f"{spare.drn}, from its stock key to its own"
