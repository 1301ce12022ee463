"""The steps of `raseed demo --check`, in order: each raises CheckFailed where the platform does not hold."""

from __future__ import annotations

import signal
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
import psycopg

from billing.take_payment import webhook_body, webhook_headers
from portal.sale import Stage
from raseed.check_care import CareSteps
from raseed.check_keys import recode
from raseed.check_town import CheckFailed, CheckTown, Purchase, until
from raseed.demo_folder import keep_secrets

if TYPE_CHECKING:
    from raseed.check import Step

APPLIED = ("applied", "powered")
FAST_WIRES_LIMIT_S = 3.0  # what a person at a counter calls at once
WRONG_TOKEN = "12345678901234567890"  # noqa: S105 - a token that no meter of the town takes
OK = 200


class Story:
    """Everything that is bought, typed, killed and counted, in an order that needs no rest between steps."""

    def __init__(self, town: CheckTown) -> None:
        self.town = town
        self.bought: list[Purchase] = []
        self._fast_s: list[float] = []
        self._care = CareSteps(town)

    def steps(self) -> Sequence[tuple[str, Step]]:
        """Name and coroutine of each step."""
        return (
            (
                "electricity over MQTT: paid, accepted by the meter, power",
                lambda: self._buy_on("electricity", "mqtt"),
            ),
            ("the receipt: page, and PDF in both languages", self._receipt),
            ("the database refuses an entry that does not balance", self._unbalanced),
            ("electricity over Modbus TCP", lambda: self._buy_on("electricity", "tcp")),
            ("electricity over Modbus RTU", lambda: self._buy_on("electricity", "rtu")),
            ("water over MQTT", lambda: self._buy_on("water", "mqtt")),
            ("water over Modbus TCP", lambda: self._buy_on("water", "tcp")),
            ("water over Modbus RTU", lambda: self._buy_on("water", "rtu")),
            (
                "a second purchase at the same meter has a TID of its own",
                lambda: self._buy_on("electricity", "mqtt"),
            ),
            ("paid→applied, median of MQTT and Modbus TCP", self._fast_enough),
            ("every command ran once, by the meters' own journals", self._commands_once),
            (
                "a meter without a link: delivered by SMS, typed, accepted; typed again, used",
                self._keypad_only,
            ),
            (
                "typed before it arrived: the delivered one is answered used, and that is applied",
                self._typed_first,
            ),
            ("a wrong token is refused by the meter", self._wrong_token),
            ("a declined payment changes nothing", self._declined),
            ("a webhook that comes twice counts once", self._double_webhook),
            ("webhooks with a wrong signature, amount or payment are refused", self._bad_webhooks),
            *self._care.steps(),
            ("a silent provider is asked, and the payment counts", self._silent),
            ("a worker killed between payment and delivery: one token, applied once", self._killed_worker),
            (
                "a recode: meters on every wire change their key, and a sale in the middle is taken under the new one",
                lambda: recode(self.town),
            ),
            ("every command ran once, to the last", self._commands_once),
            ("each token was taken once, by the meters' own TID stores", self._tokens_once),
            ("the books balance", self._books),
            ("sales that passed through UNKNOWN", self._unknown),
        )

    # -- buying ---------------------------------------------------------------------------------------------

    async def _buy_on(self, commodity: str, wire: str, amount: str = "3") -> str:
        town = self.town
        meter = town.meter(commodity, wire)
        before = (await town.store(meter))["credit"]
        purchase = await town.buy(meter, amount)
        self.bought.append(purchase)
        progress = await town.until_outcome(purchase, "powered")
        token = await town.expect_applied_once(purchase)
        after = (await town.store(meter))["credit"]
        sold = token["units_tenths"] * (100 if commodity == "electricity" else 100_000)
        if not before < after <= before + sold:
            raise CheckFailed(f"credit went from {before} to {after}, {sold} were sold")
        applied_s = _seconds(progress, "APPLIED")
        if wire in {"mqtt", "tcp"}:
            self._fast_s.append(applied_s)
        await self._page_shows(purchase, after)
        return f"paid→applied {applied_s:.2f} s, paid→power {_seconds(progress, 'POWER'):.2f} s"

    async def _page_shows(self, purchase: Purchase, credit: int) -> None:
        """The balance on the subscriber's page follows the meter's own register."""
        meter = purchase.meter
        row = "SELECT credit FROM meter_gateway.v_meter WHERE drn = %s"

        async def close() -> bool:
            shown = (await self.town.query(row, meter.drn))[0]["credit"]
            return shown is not None and abs(shown - credit) <= max(1000, credit // 50)

        await until(close, lambda: f"the page's balance does not follow the meter's {credit}", 8.0)
        visitor = await self.town.subscriber(self._owner(purchase))
        await visitor.get(f"/my/payments/{purchase.payment_id}")
        await visitor.get(f"/my/meters/{meter.drn}")

    def _owner(self, purchase: Purchase) -> Any:
        return self.town.owner(purchase.meter)

    async def _fast_enough(self) -> str:
        median = statistics.median(self._fast_s)
        if median >= FAST_WIRES_LIMIT_S:
            raise CheckFailed(f"{median:.2f} s is not under {FAST_WIRES_LIMIT_S:g} s")
        return f"{median:.2f} s of {len(self._fast_s)}"

    async def _receipt(self) -> str:
        purchase = self.bought[0]
        visitor = await self.town.subscriber(self._owner(purchase))
        rows = await self.town.query("SELECT id FROM billing.vend WHERE payment_id = %s", purchase.payment_id)
        token = await self.town.token_of(purchase)
        for language in ("ar", "en"):
            page = await visitor.get(f"/my/receipts/{rows[0]['id']}?lang={language}")
            if token["digits"] not in "".join(page.body.replace("\u00a0", "").split()):
                raise CheckFailed(f"the {language} receipt does not show the token")
            kind, content = await visitor.get_bytes(f"/my/receipts/{rows[0]['id']}.pdf?lang={language}")
            if kind != "application/pdf" or not content.startswith(b"%PDF"):
                raise CheckFailed(f"the {language} receipt is {kind}, no PDF")
        await visitor.get("/my?lang=en")
        return ""

    async def _keypad_only(self) -> str:
        town = self.town
        meter = town.meter("electricity", "keypad")
        purchase = await town.buy(meter)
        await town.until_outcome(purchase, "issued")
        token = await town.token_of(purchase)
        await self._expect_sms(purchase, token["digits"])
        first, second = (
            await town.type_token(meter, token["digits"]),
            await town.type_token(meter, token["digits"]),
        )
        if (first, second) != ("accept", "used_error"):
            raise CheckFailed(f"the keypad answered {first}, then {second}")
        await town.expect_applied_once(purchase)
        return ""

    async def _expect_sms(self, purchase: Purchase, digits: str) -> None:
        phone = self._owner(purchase).phone
        rows = await self.town.query(
            "SELECT body FROM portal.message WHERE phone = %s AND kind = 'token'", phone
        )
        if not any(digits in row["body"].replace("\u00a0", "") for row in rows):
            raise CheckFailed("the SMS with the token is not in the outbox")

    async def _typed_first(self) -> str:
        town = self.town
        meter = town.meter("electricity", "tcp", skip=3)
        town.demo.supervisor.kill("headend", signal.SIGSTOP)  # the token exists and is not delivered yet
        try:
            purchase = await town.buy(meter)
            await town.until_outcome(purchase, "issued")
            token = await town.token_of(purchase)
            typed = await town.type_token(meter, token["digits"])
        finally:
            town.demo.supervisor.kill("headend", signal.SIGCONT)
        if typed != "accept":
            raise CheckFailed(f"the keypad answered {typed}")

        async def answered_used() -> bool:
            rows = await town.query(
                "SELECT c.state, c.result ->> 'result' AS result FROM meter_gateway.meter_command c "
                "JOIN meter_gateway.meter m ON m.id = c.meter_id WHERE m.drn = %s ORDER BY c.id DESC LIMIT 1",
                meter.drn,
            )
            return bool(rows) and rows[0]["state"] == "VERIFIED" and "used" in str(rows[0]["result"]).lower()

        await until(answered_used, lambda: "the delivered token was not answered with used")
        await town.until_outcome(purchase, *APPLIED)
        await town.expect_applied_once(purchase)
        return ""

    async def _wrong_token(self) -> str:
        town = self.town
        meter = town.meter("electricity", "mqtt", skip=2)
        before = await town.store(meter)
        answer = await town.type_token(meter, WRONG_TOKEN)
        after = await town.store(meter)
        if answer in {"accept", "used_error"} or after["accepted"] != before["accepted"]:
            raise CheckFailed(f"the meter answered {answer} to a wrong token")
        return answer

    # -- payments -------------------------------------------------------------------------------------------

    async def _declined(self) -> str:
        town = self.town
        meter = town.meter("electricity", "tcp", skip=1)
        posted = await self._postings()
        purchase = await town.buy(meter, behaviour="decline")
        await town.until_outcome(purchase, "declined")
        rows = await town.query(
            "SELECT (SELECT count(*) FROM billing.token t JOIN billing.vend v ON v.id = t.vend_id "
            "WHERE v.payment_id = %s) AS tokens",
            purchase.payment_id,
        )
        if rows[0]["tokens"] or await self._postings() != posted:
            raise CheckFailed("a declined payment left a token or a posting")
        return ""

    async def _postings(self) -> int:
        return int((await self.town.query("SELECT count(*) AS n FROM billing.posting"))[0]["n"])

    async def _double_webhook(self) -> str:
        town = self.town
        purchase = await town.buy(town.meter("electricity", "tcp", skip=2), behaviour="pay_twice")
        await town.until_outcome(purchase, *APPLIED)
        event = await self._only_event(purchase)
        for event_id in (event["event_id"], "another-event-of-the-same-payment"):
            status = await self._webhook(event_id, purchase.payment_id, purchase.amount_minor)
            if status != OK:
                raise CheckFailed(
                    f"a repeated webhook was answered {status}: the provider would send it for ever"
                )
            if event_id == event["event_id"]:
                await self._only_event(purchase)
        rows = await town.query(
            "SELECT count(*) AS n FROM billing.journal WHERE kind = 'payment' AND idempotency_key LIKE %s",
            f"%{purchase.payment_id}%",
        )
        if rows[0]["n"] != 1:
            raise CheckFailed(f"{rows[0]['n']} entries of one payment")
        await town.expect_applied_once(purchase)
        return ""

    async def _only_event(self, purchase: Purchase) -> dict[str, Any]:
        rows = await self.town.query(
            "SELECT event_id FROM billing.payment_event WHERE payment_id = %s", purchase.payment_id
        )
        if len(rows) != 1:
            raise CheckFailed(f"one event of the provider was stored {len(rows)} times")
        return rows[0]

    async def _webhook(self, event_id: str, payment_id: UUID, amount_minor: int, secret: str = "") -> int:
        """Send a webhook as the provider would; give the status of the answer."""
        secret = secret or keep_secrets(self.town.demo.folder)["provider_secret"]
        body = webhook_body(event_id, payment_id, "confirmed", amount_minor)
        async with httpx.AsyncClient(base_url=self.town.demo.url, trust_env=False, timeout=10.0) as client:
            headers = webhook_headers(secret, body, datetime.now(UTC))
            return (await client.post("/webhooks/sandbox", content=body, headers=headers)).status_code

    async def _bad_webhooks(self) -> str:
        posted = await self._postings()
        purchase = self.bought[0]
        asked = (
            ("wrong signature", purchase.payment_id, purchase.amount_minor, "not the secret", 401),
            ("wrong amount", purchase.payment_id, purchase.amount_minor + 1, "", 422),
            ("unknown payment", uuid4(), purchase.amount_minor, "", 404),
        )
        for what, payment_id, amount_minor, secret, expected in asked:
            status = await self._webhook(f"check-{what}", payment_id, amount_minor, secret)
            if status != expected:
                raise CheckFailed(f"a webhook with a {what} was answered {status}, not {expected}")
        if await self._postings() != posted:
            raise CheckFailed("a forged webhook moved money")
        return ""

    async def _silent(self) -> str:
        town = self.town
        purchase = await town.buy(town.meter("electricity", "mqtt", skip=3), behaviour="pay_silent")
        progress = await town.progress(purchase)
        if str(progress.outcome) != "paying":
            raise CheckFailed(f"a silent provider's payment is shown as {progress.outcome}")
        await town.until_outcome(purchase, *APPLIED, limit_s=40.0)
        await town.expect_applied_once(purchase)
        return ""

    async def _killed_worker(self) -> str:
        town = self.town
        meter = town.meter("electricity", "mqtt", skip=4)
        town.demo.supervisor.kill("worker", signal.SIGSTOP)  # paid while it sleeps, killed before it delivers
        purchase = await town.buy(meter)

        async def paid() -> bool:
            rows = await town.query(
                "SELECT state FROM billing.vend WHERE payment_id = %s", purchase.payment_id
            )
            return bool(rows) and rows[0]["state"] == "PAID"

        await until(paid, lambda: "the payment was not confirmed")
        town.demo.supervisor.kill("worker", signal.SIGKILL)
        progress = await town.until_outcome(purchase, *APPLIED)
        await town.expect_applied_once(purchase)
        return f"paid→applied {_seconds(progress, 'APPLIED'):.2f} s"

    # -- counting -------------------------------------------------------------------------------------------

    async def _commands_once(self) -> str:
        town = self.town
        rows = await town.query(
            "SELECT m.drn, c.id FROM meter_gateway.meter_command c JOIN meter_gateway.meter m ON m.id = c.meter_id "
            "WHERE c.state IN ('VERIFIED', 'REJECTED')"
        )
        ran: list[tuple[str, int]] = []
        for meter in town.town.meters:
            if meter.link != "keypad":
                ran += [(meter.drn, int(command)) for command in (await town.store(meter))["commands_run"]]
        ordered = sorted((row["drn"], int(row["id"])) for row in rows)
        if sorted(ran) != ordered:
            raise CheckFailed(
                f"ordered {len(ordered)}, ran {len(ran)}: {sorted(set(ran) ^ set(ordered))[:5]}"
            )
        return f"{len(ran)} commands"

    async def _tokens_once(self) -> str:
        town = self.town
        rows = await town.query(
            "SELECT m.drn, t.tid FROM billing.token t JOIN meter_gateway.meter m ON m.id = t.meter_id "
            "WHERE t.purpose = 'credit'"
        )
        taken = []
        for meter in town.town.meters:
            store = await town.store(meter)
            taken += [(meter.drn, entry["tid"]) for entry in store["accepted"] if entry["tid"] is not None]
            missing = {e["tid"] for e in store["accepted"] if e["tid"] is not None} - set(store["tid_store"])
            if missing:
                raise CheckFailed(f"meter {meter.drn} accepted TIDs that its store does not hold: {missing}")
        if sorted(taken) != sorted((row["drn"], row["tid"]) for row in rows):
            raise CheckFailed(f"{len(rows)} tokens were issued, the meters took {len(taken)}")
        return f"{len(taken)} tokens"

    async def _books(self) -> str:
        from billing.reconcile import list_imbalances

        async with await psycopg.AsyncConnection.connect(self.town.demo.database_url) as conn:
            found = await list_imbalances(conn)
            if found:
                raise CheckFailed(f"the books do not balance: {found[:3]}")
            rows = await (await conn.execute("SELECT count(*) FROM billing.journal")).fetchone()
        return f"{rows[0] if rows else 0} entries"

    async def _unbalanced(self) -> str:
        async with await psycopg.AsyncConnection.connect(self.town.demo.database_url) as conn:
            try:
                async with conn.transaction(force_rollback=True):
                    await conn.execute(
                        "WITH j AS (INSERT INTO billing.journal (kind, idempotency_key, reference, occurred_at) "
                        "VALUES ('suspense', 'check', 'check', now()) RETURNING id) "
                        "INSERT INTO billing.posting SELECT j.id, line, 'suspense', NULL, amount "
                        "FROM j, (VALUES (1, 5), (2, -4)) AS v (line, amount)"
                    )
                    await conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
            except psycopg.errors.CheckViolation:
                pass
            else:
                raise CheckFailed("the database took a journal entry that does not balance")
        return ""

    async def _unknown(self) -> str:
        rows = await self.town.query(
            "SELECT count(DISTINCT vend_id) AS n FROM billing.vend_step WHERE state = 'UNKNOWN'"
        )
        return f"{rows[0]['n']}"


def _seconds(progress: Any, stage: str) -> float:
    paid, reached = progress.at(Stage.PAID), progress.at(Stage(stage))
    if paid is None or reached is None:
        raise CheckFailed(f"no time for {stage}")
    return max(0.0, float((reached - paid).total_seconds()))
