"""The recode of the check: meters on every wire change keys, and a sale in the middle is taken under the new one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from billing import key_plan_store, plan_keys
from firmware_sim.town import TownMeter
from raseed.check_town import CheckFailed, CheckTown, until
from token_engine.identifiers import following_key_revision

# The second meter of each wire: the first one is what the other steps buy on.
WIRES = (
    ("electricity", "mqtt"),
    ("electricity", "tcp"),
    ("electricity", "rtu"),
    ("water", "mqtt"),
    ("water", "tcp"),
)
RECODE_LIMIT_S = 30.0  # five meters, four of them in line behind others on a slow bus


async def recode(town: CheckTown) -> str:
    """Plan, sign, buy in the middle, and wait until every meter has proven its new key. Raises CheckFailed."""
    meters = [town.meter(commodity, wire, skip=1) for commodity, wire in WIRES]
    meters = [meter for meter in meters if meter.kt == meters[0].kt]
    revision = following_key_revision(meters[0].krn)
    plan_id = await _plan(town, meters, revision)
    purchase = await town.buy(meters[0], "2")
    await town.until_outcome(purchase, "powered")
    await town.expect_applied_once(purchase)
    rows: list[dict[str, Any]] = []

    async def all_proven() -> bool:
        nonlocal rows
        rows = await town.query(
            "SELECT m.drn, i.krn, i.pending IS NULL AS settled, (SELECT count(*) FROM meter_gateway.meter_command c "
            "WHERE c.meter_id = m.id AND c.state NOT IN ('VERIFIED', 'REJECTED')) AS open_commands "
            "FROM billing.sts_identity i JOIN meter_gateway.meter m ON m.id = i.meter_id WHERE m.drn = ANY(%s)",
            [meter.drn for meter in meters],
        )
        return all(row["krn"] == revision and row["settled"] and not row["open_commands"] for row in rows)

    await until(all_proven, lambda: f"after the recode the meters are {rows}", RECODE_LIMIT_S)
    async with await psycopg.AsyncConnection.connect(town.demo.database_url) as conn:
        rest = await key_plan_store.list_rest(conn, plan_id, limit=len(meters))
    if rest:
        raise CheckFailed(f"the plan's rest is {rest}")
    return f"{len(meters)} meters to revision {revision}"


async def _plan(town: CheckTown, meters: Sequence[TownMeter], revision: int) -> Any:
    now = datetime.now(UTC)
    async with await psycopg.AsyncConnection.connect(town.demo.database_url) as conn:
        plan = await plan_keys.make_plan(
            conn,
            idempotency_key="check:recode",
            scope={"drn": [meter.drn for meter in meters]},
            target={"krn": revision},
            reason="the check",
            requested_by="check-planner",
            role="supervisor",
            now=now,
        )
        await plan_keys.decide_plan(
            conn, plan_id=plan.id, verdict="approved", decided_by="check-signer", role="admin", now=now
        )
    return plan.id
