"""How a role proves itself to the broker: from files, read again before each connection, with errors in plain words."""

from __future__ import annotations

import logging
import ssl
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from paho.mqtt.client import Client

log = logging.getLogger(__name__)

# A certificate with fewer days left is spoken of: somebody may have to travel to the site.
SOON_DAYS: Final = 30


class InvalidLogin(ValueError):
    """A file that proves who we are, or who the broker is, cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class BrokerLogin:
    """Files only, never a secret itself; empty where nothing is set. `user` and `password_file` belong together."""

    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def read_password(path: str) -> str:
    """Return the first line of a password file. Raises InvalidLogin."""
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidLogin(f"the password file {path} cannot be read: {_reason(error)}") from None
    if not lines or not lines[0].strip():
        raise InvalidLogin(f"the password file {path} is empty")
    return lines[0].strip()


def make_context(login: BrokerLogin) -> ssl.SSLContext:
    """Return what TLS needs: who may sign the broker's certificate, and our own. Raises InvalidLogin."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if login.ca_file:
        # The system's authorities could vouch for a stranger: only the one named here counts.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(login.ca_file)
        except OSError as error:
            raise InvalidLogin(f"the CA file {login.ca_file} cannot be used: {_reason(error)}") from None
    load_own(context, login)
    return context


def load_own(context: ssl.SSLContext, login: BrokerLogin) -> None:
    """Put our certificate, as its files are now, into `context`. Raises InvalidLogin."""
    if bool(login.cert_file) != bool(login.key_file):
        raise InvalidLogin("a client certificate needs both its file and its key's file")
    if not login.cert_file:
        return
    try:
        context.load_cert_chain(login.cert_file, login.key_file, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidLogin(f"{login.key_file} is not the key of {login.cert_file}") from None
        raise InvalidLogin(
            f"{login.cert_file} and {login.key_file} cannot be used: {_reason(error)}"
        ) from None
    except OSError as error:
        raise InvalidLogin(f"{error.filename or login.cert_file} cannot be read: {_reason(error)}") from None


def _no_password() -> str:
    raise InvalidLogin("the key is locked by a password, which nobody is there to type: store it without one")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no certificate or key in PEM form"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def list_faults(login: BrokerLogin, *, is_tls: bool, now: datetime, name: str = "") -> list[str]:
    """Return what is wrong with these files, or will be soon, a sentence each; `name` is whom they shall prove."""
    faults: list[str] = []
    if bool(login.user) != bool(login.password_file):
        faults.append("user and password_file belong together: one of them is missing")
    if login.password_file:
        try:
            read_password(login.password_file)
        except InvalidLogin as error:
            faults.append(str(error))
    if not is_tls:
        if login.ca_file or login.cert_file:
            faults.append("certificates are named, but the address begins with mqtt://: write mqtts://")
        return faults
    try:
        make_context(login)
    except InvalidLogin as error:
        return [*faults, str(error)]
    from cryptography import x509

    for path in (login.ca_file, login.cert_file):
        if path:
            certificate = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
            faults += _dates(path, certificate, now)
            subject = certificate.subject.rfc4514_string()
            if name and path == login.cert_file and f"CN={name}" not in subject.split(","):
                faults.append(
                    f"{path} is made for {subject}, not for {name}: the broker would let it say nothing"
                )
    return faults


def _dates(path: str, certificate: Certificate, now: datetime) -> list[str]:
    ends, begins = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now > ends:
        return [f"{path} has expired on {ends:%Y-%m-%d}: issue a new one"]
    if now < begins:
        return [f"{path} is valid from {begins:%Y-%m-%d %H:%M} UTC only: is this machine's clock right?"]
    days = (ends - now).days
    return [f"{path} expires in {days} days: issue a new one"] if days < SOON_DAYS else []


# What OpenSSL or the system say, and what to do about it; {…} are facts of the login.
_REMEDIES: Final = (
    ("hostname mismatch", "the broker's certificate is for another name: use in the address the name it was made for"),
    ("ip address mismatch", "the broker's certificate is for another address: use the name it was made for"),
    ("certificate has expired", "the broker's certificate has expired: renew it there, and check this machine's clock"),
    ("certificate is not yet valid", "the broker's certificate begins later than now: check this machine's clock"),
    (
        "certificate verify failed",
        "the broker's certificate is not signed by {ca}: set MQTT_CA_FILE or ca_file to the CA that signed it",
    ),
    ("certificate required", "the broker asks for a client certificate: set cert_file and key_file"),
    ("handshake failure", "the broker refuses the handshake: it may want a client certificate (cert_file, key_file)"),
    ("unknown ca", "the broker does not know the CA that signed {cert}: have it issued by the broker's CA"),
    ("alert certificate expired", "{cert} has expired: issue a new one, the link takes it up by itself"),
    ("alert certificate revoked", "{cert} was revoked: issue a new one, if this site is to speak again"),
    ("alert bad certificate", "the broker does not accept {cert}: issue a new one"),
    ("eof occurred", "the broker hung up without a word, as where it does not know {cert}: its log says why"),
    ("wrong version number", "this port does not speak TLS: use mqtt://, or the broker's TLS port"),
    ("connection refused", "nothing listens there: is the broker up, and the port right?"),
    ("name or service not known", "the host name is not known: check the address and the DNS"),
    ("bad user name or password", "the broker does not know user {user} by this password: check the password file"),
    ("not authorized", "the broker lets nobody in under this name: is {user} in its password file?"),
)  # fmt: skip


_NO_WORD: Final = "the broker closed the connection without a word: its log says why"


def explain(said: str, login: BrokerLogin) -> str:
    """Return what was said when a connection failed, and what to do about it."""
    lower = said.lower()
    for sign, remedy in _REMEDIES:
        # The first alert about a time is the other side's, about ours.
        if sign in lower and not (sign == "certificate has expired" and "alert" in lower):
            facts = {
                "ca": login.ca_file or "an authority that this system knows",
                "cert": login.cert_file or "our certificate",
                "user": login.user or "this role",
            }
            return f"{remedy.format(**facts)} ({said})"
    return said


class Proof:
    """What one link shows its broker: read at the start, and again before each connection."""

    def __init__(self, login: BrokerLogin, *, is_tls: bool) -> None:
        self._login = login
        self._context = make_context(login) if is_tls else None
        self._heard = ""
        self._told = ""
        self._has_told = False  # of the present attempt
        self._is_denied = False  # since the latest connection
        if login.password_file:
            read_password(login.password_file)

    def equip(self, client: Client) -> None:
        """Give paho's client what it needs before its first connection."""
        if self._context is not None:
            client.tls_set_context(self._context)
        client.on_publish = self._on_publish

    def _on_publish(
        self, _client: Client, _data: object, _mid: int, reason: Any, _properties: object
    ) -> None:
        """The broker answers a message; that it is not allowed would otherwise be nobody's knowledge."""
        if reason.is_failure and not self._is_denied:
            self._is_denied = True
            log.error(
                "the broker does not let us speak: %s. Is %s made for this name, and does the name stand in its rules "
                "(raseed gateway acl)?",
                reason,
                self._login.cert_file or "the user",
            )

    def renew(self, client: Client) -> None:
        """Before a connection: take up files that were exchanged meanwhile; keep the old when the new are wrong."""
        self._heard = ""
        self._has_told = False
        client.on_log = self._on_log
        try:
            if self._login.password_file:
                client.username_pw_set(self._login.user, read_password(self._login.password_file))
            if self._context is not None:
                load_own(self._context, self._login)
        except InvalidLogin as error:
            self._tell(f"{error}; what was read before is used")

    def accepted(self, client: Client) -> None:
        """The broker let us in: no more listening to paho's own log, which costs at each message."""
        client.on_log = None
        self._told = self._heard = ""
        self._is_denied = False

    def refused(self, said: str = "") -> None:
        """Say once why a connection failed: `said`, the error under way, or the last that paho logged."""
        if self._has_told:
            return
        self._has_told = True
        error = sys.exception()
        self._tell(explain(said or (str(error) if error else "") or self._heard or _NO_WORD, self._login))

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            log.warning("no connection to the broker: %s", text)

    def _on_log(self, _client: Client, _data: object, _level: int, text: str) -> None:
        if "failed to receive on socket" in text:
            self._heard = text.partition(": ")[2]
