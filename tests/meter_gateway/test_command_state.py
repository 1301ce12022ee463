import pytest

from meter_gateway.command_state import FINAL, CommandEvent, CommandState, next_state

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
