import re
from typing import get_args

import pytest

from meter_gateway.command import KINDS
from meter_gateway.command_state import FINAL, CommandEvent, CommandState, next_state
from meter_gateway.topics import CommandKind

PAIRS = [(state, event) for state in CommandState for event in CommandEvent]


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_is_decided(state, event):
    after = next_state(state, event)
    assert after is None or isinstance(after, CommandState)
    if state in FINAL:
        assert after is None, "the meter's own word is final"
    if event is CommandEvent.CANCEL:
        assert (after is not None) == (state is CommandState.CREATED), "what has left cannot be called back"
    if event in (CommandEvent.EDGE_VERIFIED, CommandEvent.EDGE_REJECTED) and state not in FINAL:
        assert after == event.value, "a result settles any state, however late"


@pytest.mark.parametrize(
    ("state", "after"),
    [
        (CommandState.CREATED, CommandState.EXPIRED),
        (CommandState.SENT, CommandState.EXPIRED),
        (CommandState.ACCEPTED, CommandState.UNKNOWN),
        (CommandState.WRITTEN, CommandState.UNKNOWN),
        (CommandState.UNKNOWN, None),
    ],
)
def test_deadline_tells_never_accepted_from_silent(state, after):
    assert next_state(state, CommandEvent.DEADLINE) == after


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_only_what_never_left_becomes_cancelled(state, event):
    becomes = next_state(state, event) is CommandState.CANCELLED
    assert becomes == ((state, event) == (CommandState.CREATED, CommandEvent.CANCEL))


@pytest.mark.parametrize("event", list(CommandEvent))
def test_nothing_of_ours_moves_a_cancelled_command(event):
    after = next_state(CommandState.CANCELLED, event)
    if not event.name.startswith("EDGE"):
        assert after is None
    assert after is not CommandState.SENT


async def test_the_table_of_the_database_knows_the_same_states_and_kinds(conn):
    cursor = await conn.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conname IN ('meter_command_state_check', 'meter_command_kind_check')"
    )
    held = {name: set(re.findall(r"'(\w+)'", text)) for name, text in await cursor.fetchall()}
    assert held["meter_command_state_check"] == set(CommandState)
    assert held["meter_command_kind_check"] == KINDS == set(get_args(CommandKind))
