"""Every published vector reproduces, and a vector that is wrong is told by the step that differs."""

import copy

import pytest

from token_engine import conformance
from token_engine.conformance import run, run_entry
from token_engine.openpaygo import PaygoRejection


@pytest.mark.parametrize(("name", "count"), [("sts", 255), ("openpaygo", 32)])
def test_all_vectors_reproduce(vectors, name, count):
    report = run(vectors[name])
    assert report.failures == ()
    assert report.passed == len(report.results) == count
    assert sum(total for _, total in report.by_algorithm().values()) == count
    assert all(good == total for good, total in report.by_algorithm().values())


def test_every_vector_names_its_source(vectors):
    assert all(entry["source"] for entries in vectors.values() for entry in entries)


def wrong_digit(text):
    return ("1" if text[0] != "1" else "2") + text[1:]


def test_no_vector_passes_with_a_wrong_expectation(vectors):
    """The runner can fail: each kind of vector, with its expected value changed, is found out."""
    seen = set()
    for entry in [*vectors["sts"], *vectors["openpaygo"]]:
        kind = (entry["algorithm"], tuple(sorted(entry["inputs"])))
        if kind in seen:
            continue
        seen.add(kind)
        changed = copy.deepcopy(entry)
        if isinstance(entry["expected"], bool):
            changed["expected"] = not entry["expected"]
        elif isinstance(entry["expected"], dict):
            changed["expected"]["token"] = wrong_digit(entry["expected"]["token"])
        else:
            changed["expected"] = wrong_digit(entry["expected"])
        result = run_entry(changed)
        assert not result.passed, entry
        assert result.step
        assert result.expected != result.got
    assert len(seen) > 15


def first(entries, algorithm, *fields):
    return copy.deepcopy(
        next(
            e
            for e in entries
            if e["algorithm"].startswith(algorithm) and all(f in e["inputs"] for f in fields)
        )
    )


@pytest.mark.parametrize(
    ("algorithm", "field", "value", "step"),
    [
        ("DKGA04/EA07", "decoder_key", "00" * 8, "decoder key"),
        ("DKGA04/EA07", "tid", 1, "TID"),
        ("DKGA04/EA07", "amount_tenths", 77, "value of amount_tenths"),
        ("DKGA04/EA07", "limit_W", 77, "value of limit_W"),
        ("DKGA04/EA07", "currency_amount", "77", "sign and exponent"),
        ("DKGA04/EA07 key-change", "data48", "3f22adbee172", "section"),
        ("DKGA04/EA07 key-change", "ro", 1, "RO"),
        ("DKGA02", "panblock", "00" * 8, "PAN block"),
        ("DKGA02", "control", "00" * 8, "CONTROL block"),
        ("DKGA04", "data_block", "00", "message"),
        ("OpenPAYGO", "count", 999_999, "refused"),
        ("DKGA04/EA07", "krn", 0, "refused"),
        ("DKGA04/EA07", "rnd_or_SE", "x", "entry"),
        ("class1-clear", "control", None, "entry"),
    ],
)
def test_the_step_that_differs_is_named(vectors, algorithm, field, value, step):
    entry = first([*vectors["sts"], *vectors["openpaygo"]], algorithm, field)
    entry["inputs"][field] = value
    if field == "control" and "payload44" in entry["inputs"]:
        del entry["inputs"]["payload44"]
    assert run_entry(entry).step == step


def test_entries_nobody_can_read(vectors):
    assert run_entry({}).step == "algorithm"
    assert run_entry({"algorithm": "EA07 direct decoder key"}).step == "entry"
    assert run_entry({"algorithm": "ROT13", "inputs": {}, "expected": ""}).step == "algorithm"
    entry = first(vectors["sts"], "EA07 direct", "tid")
    for field in ("amount_tenths", "value16"):
        del entry["inputs"][field]
    assert run_entry(entry).step == "entry"


def test_a_value_may_be_left_to_the_engine(vectors):
    entry = first(vectors["sts"], "DKGA04/EA07", "amount_tenths", "issued")
    for field in ("value16", "tid", "decoder_key"):
        del entry["inputs"][field]
    assert run_entry(entry).passed


def test_openpaygo_read_back_is_part_of_the_check(vectors, monkeypatch):
    monkeypatch.setattr(conformance, "accept", lambda *_: PaygoRejection.INVALID)
    assert run_entry(vectors["openpaygo"][0]).step == "read back"
