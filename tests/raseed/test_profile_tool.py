"""The `raseed profile` command, as a person types it."""

import io
import json

import pytest

from meter_gateway.profile import profile_names
from raseed.cli import main

BAD = """name="x"
version=1
title="X"
commodity="water"
[poll]
fast=["a"]
[blocks.a.registers]
counter={address=0,type="u32"}
y={address=1,type="u16",scale="-1"}
"""


def run(capsys, *words):
    try:
        code = main(["profile", *words])
    except SystemExit as leave:
        code = int(leave.code or 0)
    told = capsys.readouterr()
    return code, told.out, told.err


def test_all_profiles_are_listed(capsys):
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert all(name in out for name in profile_names())
    _, out, _ = run(capsys, "list", "--json")
    assert {one["name"] for one in json.loads(out)} == set(profile_names())


def test_every_profile_of_the_package_is_good(capsys):
    code, out, err = run(capsys, "check", *profile_names())
    assert (code, err) == (0, "")
    assert out.count(": good") == len(profile_names())


def test_a_bad_file_is_refused_with_line_key_and_advice(capsys, tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(BAD)
    code, out, err = run(capsys, "check", str(file), "orno-we504")
    assert code == 1
    assert f"{file}:9: y has scale -1" in err
    assert f"{file}:9: counter and y overlap" in err
    assert "at    blocks.a.registers.y.scale" in err
    assert "do    counter takes 2 registers from 0x0000" in err
    assert "orno-we504: good" in out
    _, out, _ = run(capsys, "check", "--json", str(file))
    assert [fault["line"] for fault in json.loads(out)[0]["faults"]] == [9, 9]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = = 1", "no TOML"),
        (BAD.replace('scale="-1"', 'sacle="1"'), "did you mean scale"),
        (BAD.replace("version=1\n", ""), "'version' is missing"),
        ("", "'blocks' is missing"),
    ],
)
def test_standard_input_is_checked_too(capsys, monkeypatch, text, says):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code, _, err = run(capsys, "check", "-")
    assert code == 1
    assert says in err


@pytest.mark.parametrize(
    ("name", "says"), [("chint", "did you mean chint-dtsu666"), ("no/such.toml", "No such file")]
)
def test_a_name_that_is_not_there(capsys, name, says):
    for words in (("plan", name), ("check", name), ("decode", name, "3:0", "1")):
        code, _, err = run(capsys, *words)
        assert code
        assert says in err


def test_a_plan_shows_its_reads_and_their_time(capsys):
    code, out, _ = run(capsys, "plan", "usw-dn15-40", "--turnaround-ms", "0")
    assert code == 0
    assert "FC3 0x0200 + 8" in out
    assert "|########|" in out
    _, out, _ = run(capsys, "plan", "inepro-pro380", "--json", "--baud", "9600", "--turnaround-ms", "0")
    plan = json.loads(out)
    assert [(read["address"], read["count"], read["wanted"]) for read in plan["reads"]] == [
        (0x5002, 18, 12),
        (0x6000, 26, 6),
    ]
    assert plan["reads"][0]["gaps"] == [6]
    assert plan["reads"][0]["ms"] == pytest.approx((8 + 5 + 36 + 7) * 11 / 9.6, abs=0.1)
    assert plan["ms"] < plan["one_by_one_ms"]


def test_a_plan_of_chosen_registers(capsys):
    _, out, _ = run(capsys, "plan", "dynaflox-ultrad", "--registers", "counter, battery", "--json")
    assert [(read["address"], read["count"]) for read in json.loads(out)["reads"]] == [(2, 14)]
    code, _, err = run(capsys, "plan", "dynaflox-ultrad", "--registers", "mood")
    assert code == 2
    assert "mood" in err


@pytest.mark.parametrize("words", [("--baud", "0"), ("--turnaround-ms", "-1")])
def test_a_line_without_sense(capsys, words):
    assert run(capsys, "plan", "orno-we504", *words)[0] == 2


def test_words_become_values_with_units(capsys):
    code, out, _ = run(capsys, "decode", "eastron-sdm120", "4:0", "0x4366", "0x3334")
    assert code == 0
    assert "voltage" in out
    assert "230.2 V" in out
    _, out, _ = run(capsys, "decode", "eastron-sdm120", "4:0", "010404436633341B38", "--frame", "--json")
    assert json.loads(out)["values"][0]["value"] == 230_200


def test_a_sum_is_shown_beside_its_parts(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("0x0000, 0x04D2, 0x0008, 0xA6C7\n"))
    code, out, _ = run(capsys, "decode", "dynaflox-ultrad", "3:2")
    assert code == 0
    assert "1234.566983 m3" in " ".join(out.split())


def test_what_cannot_be_decoded_says_why(capsys):
    code, out, _ = run(capsys, "decode", "raseed-prepaid-e1", "3:0x1021", "99")
    assert code == 1
    assert "no meaning" in out
    code, out, _ = run(capsys, "decode", "orno-we504", "4:0", "1")
    assert code == 1
    assert "no register" in out
    code, _, err = run(capsys, "decode", "orno-we504", "0x1")
    assert code == 2
    assert "FC:ADDRESS" in err
