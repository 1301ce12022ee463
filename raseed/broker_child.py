"""The broker's own process: raise the limit on open files, then serve until killed.

Run by path with `python -I -S`, and loading only the broker's native module, it needs half the memory that
importing the package would take: hence no import from this project here.
"""

import importlib.util
import logging
import os
import resource
import signal
import sys

# What Rust writes to stderr when a thread ends by a fault of its own.
PANIC = b" panicked at "


def end_at_a_panic() -> None:
    """Have this process killed when one of its native threads panics.

    rumqttd 0.20 then goes on listening and answers nobody; seen as `group must exists` in its router, after members
    of a shared subscription were killed. Whoever runs a broker that ended starts it again, and edges say again what
    it lost. A process of its own reads what we say, since the native loop may never let another Python thread run.
    """
    broker = os.getpid()
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(write_end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end of the broker is ours
        with os.fdopen(read_end, "rb") as told:
            for line in told:
                os.write(2, line)
                if PANIC in line:
                    os.write(2, b"the broker panicked: it is ended, to be started again\n")
                    os.kill(broker, signal.SIGKILL)
        os._exit(0)
    os.close(read_end)
    os.dup2(write_end, 2)
    os.close(write_end)


def serve(native_module: str, config_file: str) -> None:
    """Serve MQTT as the TOML file `config_file` says, from the native module at that path; never returns."""
    # The native loop never gives Python a chance to raise KeyboardInterrupt, so the kernel must act.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_at_a_panic()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # rumqttd opens an error-level span for each packet; let through, they would be a log line per message.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    spec = importlib.util.spec_from_file_location("iotcore", native_module)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{native_module} is not a native Python module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.IotCoreBroker(config_path=config_file).run_forever()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
