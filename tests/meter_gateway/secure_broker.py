"""A mosquitto as deploy/mosquitto describes it: TLS with client certificates, and rules of `raseed gateway acl`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from meter_gateway.broker.broker_acl import make_acl
from meter_gateway.broker.broker_ca import Authority, make_ca
from meter_gateway.broker.broker_login import BrokerLogin
from tests.meter_gateway.conftest import free_port

TOP = Path(__file__).resolve().parents[2]
EXAMPLE = TOP / "deploy/mosquitto/mosquitto.conf"


class SecureBroker:
    """Started from the example file of deploy/, its folders and ports moved into a test's own."""

    def __init__(self, folder: Path, edges, headends=("headend-1",)) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port, self.password_port = free_port(), free_port()
        now = datetime.now(UTC)
        ca = make_ca("test authority", now)
        self.authority = Authority(ca.certificate, ca.key)
        server = self.authority.issue_broker(["localhost"], now)
        for name, body in (
            ("ca.crt", ca.certificate),
            ("broker.crt", server.certificate),
            ("broker.key", server.key),
            ("revoked.pem", self.authority.revoke([], now)),
            ("acl", make_acl(edges, headends).encode()),
            ("passwords", b""),
        ):
            self.write(name, body)
        text = EXAMPLE.read_text()
        for old, new in (
            ("/etc/mosquitto/raseed/", f"{folder}/"),
            ("/var/lib/mosquitto/", f"{folder}/"),
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
            ("listener 8884", f"listener {self.password_port} 127.0.0.1"),
            ("log_dest syslog", f"log_dest file {folder}/log"),
        ):
            assert old in text, old
            text = text.replace(old, new)
        self.config = folder / "mosquitto.conf"
        self.config.write_text(f"{text}\nuser {os.environ.get('USER', 'root')}\n")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def write(self, name: str, body: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(body)
        path.chmod(0o600)
        return path

    def login(self, name: str, issued=None, **more) -> BrokerLogin:
        """Files of a client certificate on this name, made here unless `issued` is given."""
        issued = issued or self.authority.issue_client(name, datetime.now(UTC))
        cert = self.write(f"{name}.crt", issued.certificate)
        key = self.write(f"{name}.key", issued.key)
        return BrokerLogin(
            ca_file=str(self.folder / "ca.crt"), cert_file=str(cert), key_file=str(key), **more
        )

    def set_password(self, user: str, password: str) -> None:
        """As an operator does, though he is asked for it: a command line is no place for a password."""
        subprocess.run(["mosquitto_passwd", "-b", self.folder / "passwords", user, password], check=True)

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["mosquitto", "-c", self.config], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.password_port)) == 0:
                    return
            if self.process.poll() is not None:
                raise RuntimeError(f"mosquitto ends: {self.process.stderr.read().decode()} {self.log}")
            time.sleep(0.02)
        raise RuntimeError("mosquitto does not answer")

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)
        time.sleep(0.2)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
