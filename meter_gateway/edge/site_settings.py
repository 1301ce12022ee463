"""All that a gateway needs to know before it starts: site.toml, with the environment's word over it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from meter_gateway.broker.broker_login import BrokerLogin, list_faults
from meter_gateway.broker.mqtt_link import MqttAddress, parse_url
from meter_gateway.bus.site_file import InvalidSite, Site, parse_site
from meter_gateway.edge.outbox import Quota

_TABLES: Final[Mapping[str, frozenset[str]]] = {
    "mqtt": frozenset({"url", *(field.name for field in fields(BrokerLogin))}),
    "outbox": frozenset({"max_messages", "max_mb", "max_days", "file_mb", "replay_per_s"}),
}
# No disk holds more messages, megabytes or days.
_MOST: Final = 1_000_000_000
_TOP: Final = frozenset({"site", "bus", "state_dir", *_TABLES})


@dataclass(frozen=True, slots=True)
class SiteSettings:
    """A checked site.toml. `file_bytes` caps the outbox's file, None leaves it to the disk.

    `history_per_s` is None where the number of meters decides.
    """

    site: Site
    mqtt_url: str
    login: BrokerLogin
    state_dir: Path
    quota: Quota
    file_bytes: int | None
    history_per_s: float | None


def read_site_settings(
    path: Path, *, mqtt_url: str = "", state_dir: str = "", login: BrokerLogin | None = None
) -> SiteSettings:
    """Read site.toml; what the environment says, where it says something, counts more. Raises InvalidSite."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidSite(f"the site file {path} cannot be read: {reason}") from None
    return parse_site_settings(text, folder=path.parent, mqtt_url=mqtt_url, state_dir=state_dir, login=login)


def parse_site_settings(
    text: str, *, folder: Path, mqtt_url: str = "", state_dir: str = "", login: BrokerLogin | None = None
) -> SiteSettings:
    """Return the checked settings; paths in the file are relative to `folder`. Raises InvalidSite."""
    site = parse_site(text)
    data = tomllib.loads(text)
    _refuse_strangers(data)
    mqtt, outbox = data.get("mqtt", {}), data.get("outbox", {})
    url = mqtt_url or _text(mqtt, "url")
    if not url:
        raise InvalidSite(
            'no broker is named: add  [mqtt] url = "mqtts://broker.example:8883", or set MQTT_URL'
        )
    try:
        address = parse_url(url)
    except ValueError as error:
        raise InvalidSite(f"[mqtt] url: {error}") from None
    if not mqtt_url and address.password:
        raise InvalidSite("[mqtt] url holds a password: name user and password_file instead")
    state = state_dir or _text(data, "state_dir")
    if not state:
        raise InvalidSite(
            'no folder for what must survive a restart: add  state_dir = "…", or set RASEED_STATE_DIR'
        )
    file_mb = _number(outbox, "file_mb", 0, 1)
    default = Quota()
    return SiteSettings(
        site=site,
        mqtt_url=url,
        login=_login(mqtt, login or BrokerLogin(), folder),
        state_dir=Path(state) if state_dir else folder / state,
        quota=Quota(
            messages=int(_number(outbox, "max_messages", default.messages, 100)),
            bytes=int(_number(outbox, "max_mb", default.bytes / 2**20, 1) * 2**20),
            age_ms=int(_number(outbox, "max_days", default.age_ms / 86_400_000, 1) * 86_400_000),
        ),
        file_bytes=int(file_mb * 2**20) or None,
        history_per_s=_number(outbox, "replay_per_s", 0, 0.1) or None,
    )


def _refuse_strangers(data: Mapping[str, Any]) -> None:
    """A word that is misspelt would be a wish that nobody hears."""
    for name, allowed in (("", _TOP), *_TABLES.items()):
        table = data.get(name, {}) if name else data
        where = f"[{name}] " if name else ""
        if not isinstance(table, dict):
            raise InvalidSite(f"{name} is a table: write  [{name}]  on a line of its own")
        for key in table:
            if key == "password":
                raise InvalidSite(
                    f"{where}password: no secret in this file; put it into a file that only the gateway reads,"
                    " and name that as password_file"
                )
            if key not in allowed:
                raise InvalidSite(f"{where}{key} is not known here; there is {', '.join(sorted(allowed))}")


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise InvalidSite(f"{key} is a text: write it between quotation marks")
    return value


def _number(table: Mapping[str, Any], key: str, default: float, least: float) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidSite(f"[outbox] {key} is a number from {least:g}")
    if key in table and not least <= value <= _MOST:  # TOML knows inf and nan, too
        raise InvalidSite(f"[outbox] {key} is a number from {least:g} to {_MOST:g}")
    return float(value)


def _login(mqtt: Mapping[str, Any], over: BrokerLogin, folder: Path) -> BrokerLogin:
    found: dict[str, str] = {}
    for field in fields(BrokerLogin):
        told, written = getattr(over, field.name), _text(mqtt, field.name)
        if field.name.endswith("_file") and written:
            written = str(folder / written)
        found[field.name] = told or written
    return BrokerLogin(**found)


def list_site_faults(settings: SiteSettings, now: datetime) -> list[str]:
    """Return what on this machine does not fit the settings, a sentence each: files, dates, folders, lines."""
    address: MqttAddress = parse_url(settings.mqtt_url)
    faults = list_faults(settings.login, is_tls=address.tls, now=now, name=settings.site.code)
    if address.host not in ("localhost", "127.0.0.1", "::1") and not address.tls:
        faults.append(f"the line to {address.host} is not encrypted: use mqtts:// beyond this machine")
    for path in (settings.login.password_file, settings.login.key_file):
        if path and Path(path).exists() and Path(path).stat().st_mode & 0o077:
            faults.append(f"{path} can be read by others: chmod 600 {path}")
    folder = settings.state_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        faults.append(f"the state folder {settings.state_dir} cannot be written by this user")
    if not settings.site.buses:
        faults.append("no [[bus]] is named: the gateway would read no meter")
    for bus in settings.site.buses.values():
        if bus.tty and not Path(bus.tty).exists():
            faults.append(f"bus {bus.code}: there is no {bus.tty}; is the adapter plugged in?")
        elif bus.tty and not os.access(bus.tty, os.R_OK | os.W_OK):
            faults.append(
                f"bus {bus.code}: {bus.tty} may not be opened by this user; is it in group dialout?"
            )
    return faults
