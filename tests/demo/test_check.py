"""`raseed demo --check` (raseed.check, raseed.check_story, raseed.check_care) holds on a sound
house, and fails at the right step on one with a beam sawn through.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SABOTAGE = Path(__file__).resolve().parent.parent / "sabotage"
LIMIT_S = 180

# What is broken → words of the step that must notice.
NOTICED_BY = {
    "webhook-dedupe-off": "a webhook that comes twice counts once",
    "balance-trigger-dropped": "the database refuses an entry that does not balance",
    "tid-repeated": "a second purchase at the same meter",
    "command-dropped": "electricity over MQTT",
    "command-doubled": "every command ran once",
    "last-gasps-ignored": "a transformer fails",
    "used-is-refused": "typed before it arrived",
}


def check(sabotage: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ}
    if sabotage:
        env |= {"RASEED_SABOTAGE": sabotage, "PYTHONPATH": str(SABOTAGE)}
    return subprocess.run(
        [sys.executable, "-m", "raseed", "demo", "--check"],
        env=env,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.mark.demo
def test_the_whole_story_holds():
    done = check()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All steps held." in done.stdout
    assert "sum of PSS" in done.stdout


@pytest.mark.demo
@pytest.mark.parametrize("sabotage", sorted(NOTICED_BY))
def test_sabotage_is_noticed_at_its_step(sabotage):
    done = check(sabotage)
    assert done.returncode == 1, f"nobody noticed:\n{done.stdout}"
    failed = done.stderr.partition("FAILED: ")[2]
    assert failed.startswith(NOTICED_BY[sabotage]), f"noticed at the wrong step: {failed}\n{done.stdout}"


@pytest.mark.demo
def test_a_late_vault_passes_through_unknown_and_ends_well():
    done = check("vault-late")
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(line for line in done.stdout.splitlines() if "passed through UNKNOWN" in line)
    assert int(line.split()[-1]) > 5, line
