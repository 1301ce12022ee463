"""What orders become at a meter, case by case."""

import pytest

from meter_gateway.edge import mailbox
from meter_gateway.profile import load_profile

E1, HIKING, ORNO = (load_profile(name) for name in ("raseed-prepaid-e1", "hiking-dds238", "orno-we504"))
NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("profile", "routes"),
    [
        (
            E1,
            {
                "token": "mailbox",
                "relay_close": "mailbox",
                "clock": "mailbox",
                "limits": "mailbox",
                "read_now": "read",
            },
        ),
        (
            HIKING,
            {"token": None, "relay_close": "relay", "relay_open": "relay", "clock": None, "read_now": "read"},
        ),
        (ORNO, {"token": None, "relay_close": None, "limits": None, "read_now": "read"}),
    ],
    ids=["prepaid", "relay only", "measures only"],
)
def test_each_meter_takes_what_it_can(profile, routes):
    assert {kind: mailbox.route_of(profile, kind) for kind in routes} == routes


@pytest.mark.parametrize(
    ("kind", "argument", "opcode", "number"),
    [
        ("relay_open", "", "relay_open", 0),
        ("relay_close", "", "relay_close", 0),
        ("clock", "", "set_clock", NOW_MS // 1000),
        ("limits", "power=5000", "set_power_limit", 5000),
        ("limits", "low=3,2", "set_low_marks", 3 << 32 | 2),
    ],
)
def test_an_order_is_one_armed_write(kind, argument, opcode, number):
    values = mailbox.writing(E1, 7, kind, argument, NOW_MS)
    assert (values["command_id"], values["command_opcode"], values["command_argument"]) == (7, opcode, number)
    address, words = E1.encode_write(values)
    assert (address, len(words)) == (0x1030, 11)


def test_closing_outright_needs_the_profiles_leave():
    import dataclasses

    bold = dataclasses.replace(E1, remote_close="closed")
    assert mailbox.writing(bold, 7, "relay_close", "", NOW_MS)["command_opcode"] == "relay_connect"
    assert mailbox.writing(HIKING, 7, "relay_close", "", NOW_MS) == {"relay": 1}
    careful = dataclasses.replace(HIKING, remote_close="ready")
    assert mailbox.refusal(careful, "relay_close", {})["result"] == "NOT_ALLOWED"
    assert mailbox.refusal(careful, "relay_open", {}) is None


def test_nobody_closes_after_tamper():
    assert mailbox.names_before(E1, "relay_close") == ("tamper",)
    assert mailbox.refusal(E1, "relay_close", {"tamper": 1})["why"] == "tamper"
    assert mailbox.refusal(E1, "relay_close", {"tamper": 0}) is None
    assert mailbox.refusal(E1, "relay_open", {"tamper": 1}) is None


DONE = {"command_status": "DONE", "command_detail": "none"}


@pytest.mark.parametrize(
    ("kind", "argument", "outcome", "after", "state", "says"),
    [
        ("relay_open", "", DONE, {}, "VERIFIED", {"result": "DONE"}),
        (
            "relay_open",
            "",
            {"command_status": "REFUSED", "command_detail": "relay_stuck"},
            {},
            "REJECTED",
            {"result": "REFUSED", "why": "relay_stuck"},
        ),
        ("clock", "", DONE, {"clock": NOW_MS // 1000 - 5}, "VERIFIED", {"result": "DONE", "drift_s": -5}),
        (
            "clock",
            "",
            DONE,
            {"clock": NOW_MS // 1000 - 6},
            "REJECTED",
            {"result": "CLOCK_OFF", "drift_s": -6},
        ),
        ("limits", "power=9", DONE, {"power_limit": 9}, "VERIFIED", {"result": "DONE", "power_limit": 9}),
        (
            "limits",
            "power=9",
            DONE,
            {"power_limit": 8},
            "REJECTED",
            {"result": "NOT_AS_ORDERED", "power_limit": 8},
        ),
        (
            "limits",
            "low=3,2",
            DONE,
            {"low_1": 3, "low_2": 2},
            "VERIFIED",
            {"result": "DONE", "low_1": 3, "low_2": 2},
        ),
        (
            "token",
            "1" * 20,
            {"token_result": "ACCEPT", "token_tid": 5},
            {},
            "VERIFIED",
            {"result": "ACCEPT", "tid": 5},
        ),
        (
            "token",
            "1" * 20,
            {"token_result": "OLD_ERROR", "token_tid": 5},
            {},
            "REJECTED",
            {"result": "OLD_ERROR", "tid": 5},
        ),
    ],
)
def test_the_meters_word_and_what_it_shows_decide(kind, argument, outcome, after, state, says):
    assert mailbox.judge(kind, argument, outcome, after, NOW_MS) == (state, says)
    assert set(mailbox.names_after(kind, argument)) == set(after)
