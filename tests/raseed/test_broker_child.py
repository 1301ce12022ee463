import resource
import signal
import subprocess
import sys

from raseed import broker_child


def test_the_file_runs_without_site_packages_and_names_what_it_cannot_load() -> None:
    argv = [sys.executable, "-I", "-S", broker_child.__file__, "/nowhere/iotcore.txt", "broker.toml"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert done.stderr.strip() == "/nowhere/iotcore.txt is not a native Python module"


def test_it_may_open_as_many_files_as_the_system_allows(tmp_path) -> None:
    # A module in place of the broker, which tells the limit that the broker would have.
    module = tmp_path / "iotcore.py"
    module.write_text(
        "import resource, signal\n"
        "class IotCoreBroker:\n"
        "    def __init__(self, config_path): self.path = config_path\n"
        "    def run_forever(self):\n"
        "        print(self.path, resource.getrlimit(resource.RLIMIT_NOFILE)[0],\n"
        "              signal.getsignal(signal.SIGINT) is signal.SIG_DFL)\n"
    )
    argv = ["sh", "-c", 'ulimit -S -n 64; exec "$0" "$@"', sys.executable, "-I", "-S", broker_child.__file__]
    done = subprocess.run([*argv, module, "b.toml"], capture_output=True, text=True, check=True, timeout=20)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert done.stdout.split() == ["b.toml", str(hard), "True"]


def test_a_broker_whose_router_panicked_is_ended_so_that_it_is_started_again(tmp_path) -> None:
    module = tmp_path / "iotcore.py"
    module.write_text(
        "import os, time\n"
        "class IotCoreBroker:\n"
        "    def __init__(self, config_path): pass\n"
        "    def run_forever(self):\n"
        "        os.write(2, b\"thread 'router-0' (7) panicked at routing.rs:512:30:\\ngroup must exists\\n\")\n"
        "        while True: time.sleep(1)\n"
    )
    argv = [sys.executable, "-I", "-S", broker_child.__file__, module, "b.toml"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == -signal.SIGKILL
    assert "panicked at routing.rs:512:30" in done.stderr
    assert "to be started again" in done.stderr
