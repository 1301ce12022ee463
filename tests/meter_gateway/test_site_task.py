"""Every state with every event, and what a task may ask for."""

import pytest

from meter_gateway.errors import InvalidTask
from meter_gateway.site_task import (
    SETTLED,
    TaskEvent,
    TaskState,
    check_argument,
    next_state,
    number_registers,
)


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("event", TaskEvent)
def test_every_pair_is_decided(state, event):
    after = next_state(state, event)
    assert after is None or after in TaskState
    if state in SETTLED - {TaskState.EXPIRED}:
        assert after is None  # the gateway's word is final
    if after is not None and state is TaskState.EXPIRED:
        assert after in (TaskState.DONE, TaskState.FAILED)  # a result that comes late


def test_a_scan_is_filled_in():
    assert check_argument("scan", {}, framer="tcp") == {
        "first": 1,
        "last": 247,
        "bauds": [],
        "parities": ["N"],
        "timeout_ms": 0,
    }
    assert check_argument("trace", {}, framer="tcp") == {"seconds": 30, "unit": 0}
    assert check_argument("probe", {"unit": 7}, framer="rtu") == {"unit": 7, "profiles": []}


@pytest.mark.parametrize(
    ("kind", "argument", "reason"),
    [
        ("dance", {}, "kind_unknown"),
        ("scan", {"first": 0}, "unit_range"),
        ("scan", {"first": 9, "last": 8}, "unit_range"),
        ("scan", {"last": 248}, "unit_range"),
        ("scan", {"first": "1"}, "not_a_number"),
        ("scan", {"first": True}, "not_a_number"),
        ("scan", {"bauds": [9601]}, "baud_unknown"),
        ("scan", {"parities": ["X"]}, "parity_unknown"),
        ("scan", {"timeout_ms": 10}, "timeout_range"),
        ("probe", {}, "unit_range"),
        ("probe", {"unit": 1, "profiles": ["../x"]}, "profile_unknown"),
        ("registers", {"unit": 1}, "profile_unknown"),
        ("words", {"unit": 1, "profile": "raseed-prepaid-e1", "register": "token"}, "register_unknown"),
        ("words", {"unit": 1, "profile": "raseed-prepaid-e1", "register": "serial"}, "register_unknown"),
        ("trace", {"seconds": 0}, "seconds_range"),
        ("trace", {"seconds": 301}, "seconds_range"),
        ("trace", {"seconds": 5, "unit": 300}, "unit_range"),
    ],
)
def test_what_makes_no_sense_is_refused(kind, argument, reason):
    with pytest.raises(InvalidTask) as refused:
        check_argument(kind, argument, framer="rtu")
    assert refused.value.reason == reason


def test_only_a_port_of_ours_has_a_speed():
    with pytest.raises(InvalidTask) as refused:
        check_argument("scan", {"bauds": [9600]}, framer="tcp")
    assert refused.value.reason == "line_fixed"


def test_numbers_that_can_have_an_order():
    assert {"counter", "credit"} <= set(number_registers("raseed-prepaid-e1"))
    assert not {"token", "serial", "voltage", "command_id"} & set(number_registers("raseed-prepaid-e1"))
