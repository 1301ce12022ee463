"""Break one thing in every process of a demo: Python imports this by itself where PYTHONPATH names this folder.

The product holds no switch for it. RASEED_SABOTAGE names the breakage; the named module is patched as soon as
it was imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import uuid


def webhook_dedupe_off(module):
    """Each event of the provider counts as a new one."""
    from dataclasses import replace

    real = module.insert_event

    async def insert_event(conn, *, provider, event, now):
        return await real(conn, provider=provider, event=replace(event, event_id=str(uuid.uuid4())), now=now)

    module.insert_event = insert_event


def balance_trigger_dropped(module):
    real = module.migrate

    async def migrate(database_url, *args, **kwargs):
        import psycopg

        applied = await real(database_url, *args, **kwargs)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
            await conn.execute("DROP TRIGGER IF EXISTS posting_balances ON billing.posting")
        return applied

    module.migrate = migrate


def tid_repeated(module):
    """The allocation forgets what it gave, and gives the same again within the hour."""

    async def allocate_tid(conn, meter_id, now):
        identity = await module.lock_identity(conn, meter_id)
        key = identity.issuing
        hour = now.replace(minute=30, second=0, microsecond=0)
        tid = module.BASE_DATES[key.base_date].tid_at(hour)
        return module.AllocatedTid(key.base_date, tid, key, identity.key_change_id)

    module.allocate_tid = allocate_tid


def command_dropped(module):
    module.Dispatch._say = lambda _self, _due, _now: None


def command_doubled(module):
    """Each command is said a second time under a number of its own, as a careless retry would."""
    from dataclasses import replace

    real = module.Dispatch._say

    def say(self, due, now):
        real(self, due, now)
        real(self, replace(due, id=due.id + 1_000_000), now)

    module.Dispatch._say = say


def last_gasps_ignored(module):
    real = module.insert_events

    async def insert_events(conn, events):
        await real(conn, [event for event in events if event.code != "3.26.0.85"])

    module.insert_events = insert_events


def used_is_refused(module):
    """The gateway takes the meter's USED for a refusal."""
    real = module.is_verified
    module.is_verified = lambda kind, result: real(kind, result) and result != "USED_ERROR"


def vault_late(module):
    """The first answer to each request is lost on its way."""
    from token_engine.errors import VaultTimeout

    real = module.SoftwareVault.issue_credit
    asked = set()

    async def issue_credit(self, request):
        issued = await real(self, request)
        if request.request_id not in asked:
            asked.add(request.request_id)
            raise VaultTimeout("the answer was lost")
        return issued

    module.SoftwareVault.issue_credit = issue_credit


BREAKAGES = {
    "webhook-dedupe-off": ("billing.payment_store", webhook_dedupe_off),
    "balance-trigger-dropped": ("raseed.migrate", balance_trigger_dropped),
    "tid-repeated": ("billing.identity_store", tid_repeated),
    "command-dropped": ("meter_gateway.dispatch", command_dropped),
    "command-doubled": ("meter_gateway.dispatch", command_doubled),
    "last-gasps-ignored": ("meter_gateway.event_store", last_gasps_ignored),
    "used-is-refused": ("meter_gateway.edge.mailbox", used_is_refused),
    "vault-late": ("token_engine.software_vault", vault_late),
}


class _Patcher(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the target through its real loader, then breaks it."""

    def __init__(self, target, breakage):
        self.target, self.breakage, self.real = target, breakage, None

    def find_spec(self, fullname, path, target=None):
        if fullname != self.target or self.real is not None:
            return None
        self.real = ...  # the real finders are asked next, without us
        spec = importlib.util.find_spec(fullname)
        self.real = spec.loader
        spec.loader = self
        return spec

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        self.real.exec_module(module)
        self.breakage(module)
        print(f"sabotage: {self.target} is broken on purpose", file=sys.stderr)


if os.environ.get("RASEED_SABOTAGE"):
    import importlib.util

    sys.meta_path.insert(0, _Patcher(*BREAKAGES[os.environ["RASEED_SABOTAGE"]]))
