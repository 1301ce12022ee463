"""`raseed token` as an engineer uses it: exit codes, messages, and a set with a wrong vector."""

import json
import os
import subprocess
import sys

import pytest

from raseed.cli import main

KEY = "87f3ecbb2e46b48f"
TOKEN = "70630503470028726114"


@pytest.fixture(autouse=True)
def decoder_key(monkeypatch):
    monkeypatch.setenv("RASEED_DECODER_KEY", KEY)


def test_a_published_token_is_made_again(capsys):
    argv = ["token", "encode", "electricity", "--amount", "0.1", "--issued", "2014-03-01T13:00", "--rnd", "5"]
    assert main(argv) == 0
    assert capsys.readouterr().out.splitlines()[0].replace(" ", "") == TOKEN


@pytest.mark.parametrize("typed", [TOKEN, "7063-0503-4700-2872-6114", "٧٠٦٣ ٠٥٠٣ ٤٧٠٠ ٢٨٧٢ ٦١١٤"])
def test_explain_reads_what_people_type(typed, capsys):
    assert main(["token", "explain", typed]) == 0
    said = capsys.readouterr().out
    assert "2014-03-01 13:00 UTC" in said
    assert "would answer ACCEPT" in said


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["token", "explain", TOKEN[:-1]], 2, "20 digits"),
        (["token", "explain", "99999999999999999999"], 2, ""),
        (["token", "decode", TOKEN[:-1] + "5"], 1, "does not check"),
        (["token", "encode", "electricity", "--amount", "1.25"], 2, "at most 1 decimals"),
        (["token", "encode", "electricity", "--amount", "abc"], 2, ""),
        (["token", "encode", "electricity", "--amount", "1900000"], 2, ""),
        (["token", "encode", "electricity", "--amount", "1", "--issued", "2013-12-31T00:00"], 2, ""),
        (["token", "conformance", "no-such-file.json"], 2, "cannot be read"),
    ],
)
def test_bad_input_is_refused_in_words(argv, code, words, capsys):
    assert main(argv) == code
    said = capsys.readouterr()
    assert words in said.out + said.err
    assert "Traceback" not in said.err
    assert KEY not in said.out + said.err


def test_conformance_passes_on_published_vectors_and_fails_on_a_wrong_one(vectors, tmp_path, capsys):
    assert main(["token", "conformance", str(vectors / "sts.json"), str(vectors / "openpaygo.json")]) == 0
    wrong = json.loads((vectors / "sts.json").read_text())
    wrong[20]["expected"] = "00000000000000000000"
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(wrong))
    capsys.readouterr()
    assert main(["token", "conformance", str(path)]) == 1
    assert "1 failed" in capsys.readouterr().out


def test_the_key_is_not_asked_for_on_the_command_line():
    shown = subprocess.run(
        [sys.executable, "-m", "raseed", "token", "encode", "--help"],
        capture_output=True,
        text=True,
        env=os.environ,
    ).stdout
    assert "--decoder-key-file" in shown
    assert "--decoder-key " not in shown
