import json
import subprocess
import sys
from pathlib import Path

import pytest

from raseed import processes, run_folder
from raseed.run_folder import DataFolderBusy, RunFolder, kill_role, read_table
from tests.raseed.children import started

_HOLDS_THE_LOCK = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from raseed.run_folder import RunFolder
RunFolder(Path({folder!r})).take()
print(flush=True)
time.sleep(300)
"""


def test_a_second_holder_is_refused_by_name_of_the_first(tmp_path: Path) -> None:
    code = _HOLDS_THE_LOCK.format(root=str(Path(__file__).parents[2]), folder=str(tmp_path))
    with started([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(DataFolderBusy, match=f"process {holder.pid}.*another folder"):
            RunFolder(tmp_path).take()
        holder.kill()
        holder.wait()
    # The lock vanished with its killed holder, though the file is still there.
    assert (tmp_path / run_folder.LOCK_NAME).exists()
    folder = RunFolder(tmp_path)
    folder.take()
    folder.release()
    assert list(tmp_path.iterdir()) == []


def test_taking_the_folder_ends_what_a_killed_predecessor_left(tmp_path: Path) -> None:
    with started(["sleep", "300"]) as left, started(["sleep", "300"]) as stranger:
        ticks = {child.pid: processes.start_ticks(child.pid) or 0 for child in (left, stranger)}
        rows = {
            "left": {"pid": left.pid, "ticks": ticks[left.pid]},
            # The pid was given out again since: not ours any more.
            "gone": {"pid": stranger.pid, "ticks": ticks[stranger.pid] - 1},
        }
        (tmp_path / run_folder.TABLE_NAME).write_text(json.dumps({"pid": 1, "children": rows}))
        folder = RunFolder(tmp_path)
        folder.take()
        assert left.wait(5) == -9
        assert processes.is_running(stranger.pid)
        stranger.kill()
        folder.release()


def test_roles_are_killed_by_name_from_outside(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.take()
    with started(["sleep", "300"]) as child:
        ticks = processes.start_ticks(child.pid)
        folder.write_table(json.dumps({"pid": 1, "children": {"portal": {"pid": child.pid, "ticks": ticks}}}))
        assert not kill_role(tmp_path, "headend")
        assert kill_role(tmp_path, "portal")
        assert child.wait(5) == -9
        assert not kill_role(tmp_path, "portal")
    assert (tmp_path / run_folder.TABLE_NAME).stat().st_mode & 0o777 == 0o600
    folder.release()
    assert read_table(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"children": 3}', "{"])
def test_a_table_that_is_none_is_read_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / run_folder.TABLE_NAME).write_text(text)
    assert read_table(tmp_path) is None


def test_logs_are_rotated_at_their_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "LOG_CAP_BYTES", 10)
    folder = RunFolder(tmp_path)
    with folder.open_log("site.1") as log:
        log.write(b"first run\n!")
    with folder.open_log("site.1") as log:
        log.write(b"2nd")
        log.flush()
        folder.trim_log("site.1")  # under the cap: nothing happens
        log.write(b" run, longer")
        log.flush()
        folder.trim_log("site.1")  # over it, while the child holds it open
        log.write(b"on\n")
    logs = tmp_path / "logs"
    assert (logs / "site.1.log.1").read_bytes() == b"2nd run, longer"
    assert (logs / "site.1.log").read_bytes() == b"on\n"
    assert folder.log_tail("site.1") == "on"
    assert folder.log_tail("other") == ""
    assert sorted(path.name for path in logs.iterdir()) == ["site.1.log", "site.1.log.1"]
