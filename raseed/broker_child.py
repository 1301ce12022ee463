"""The broker's own process: raise the limit on open files, then serve until killed.

Run by path with `python -I -S`, and loading only the broker's native module, it needs half the memory that
importing the package would take: hence no import from this project here.
"""

import importlib.util
import logging
import resource
import signal
import sys


def serve(native_module: str, config_file: str) -> None:
    """Serve MQTT as the TOML file `config_file` says, from the native module at that path; never returns."""
    # The native loop never gives Python a chance to raise KeyboardInterrupt, so the kernel must act.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
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
