"""What the commands about a removed meter's credit take; the rest is tests/raseed/test_field_tool.py."""

import argparse
from uuid import uuid4

import pytest

from raseed import field_credit


def parser():
    made = argparse.ArgumentParser()
    field_credit.add_commands(made.add_subparsers(required=True))
    return made


def test_each_decision_names_its_credit():
    one = uuid4()
    read = parser().parse_args(["credit", "--release", str(one), "--as", "noor"])
    assert (read.release, read.settle, read.yes, read.person) == (one, None, False, "noor")


@pytest.mark.parametrize(
    "words",
    [
        ["credit", "--release", "7"],
        ["cleared", "06000000015", "maybe", "--as", "salma"],
        ["cleared", "06000000015", "taken"],
    ],
)
def test_what_is_no_decision(words):
    with pytest.raises(SystemExit):
        parser().parse_args(words)
