"""The check's steps about people: an outage from last gasp to restoration, a ticket from open to resolved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

from raseed.check_town import CheckFailed, CheckTown, until

if TYPE_CHECKING:
    from firmware_sim.town import TownMeter
    from raseed.check import Step

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
            ("supply comes back: closed for the meters that were seen alive", self._restored),
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
