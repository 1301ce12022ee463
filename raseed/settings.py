"""Settings of every role, read once from the environment and passed down as plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingMissing(Exception):
    """A setting that this role cannot do without is not in the environment."""

    def __init__(self, name: str, example: str) -> None:
        super().__init__(f"{name} is not set. Set it, for example:  export {name}={example}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; empty text and zero where it says nothing."""

    database_url: str
    mqtt_url: str
    mqtt_user: str
    mqtt_password_file: str
    mqtt_ca_file: str
    mqtt_cert_file: str
    mqtt_key_file: str
    mqtt_share_group: str
    host: str
    port: int
    public_url: str
    demo: bool
    provider_url: str
    provider_secret: str
    secret_key: str
    vault_file: str
    wrapping_key_file: str
    site_file: str
    state_dir: str
    control_port: int
    control_url: str
    speed: float
    town_seed: int
    outage_debounce_s: float
    headend_name: str
    log_level: str
    log_format: str
    keep_raw_months: int
    keep_hour_months: int
    keep_day_months: int
    keep_dead_letter_days: int
    metrics_host: str
    metrics_port: int

    def need(self, name: str) -> str:
        """Return the text setting `name`, or raise SettingMissing saying how to set it."""
        value = str(getattr(self, name))
        if not value:
            env_name, example = _NAMES[name]
            raise SettingMissing(env_name, example)
        return value


_NAMES: dict[str, tuple[str, str]] = {
    "database_url": ("DATABASE_URL", "postgresql://raseed@127.0.0.1:5432/raseed"),
    "mqtt_url": ("MQTT_URL", "mqtt://127.0.0.1:1883"),
    "provider_url": ("RASEED_PROVIDER_URL", "http://127.0.0.1:8090"),
    "provider_secret": ("RASEED_PROVIDER_SECRET", "$(openssl rand -hex 32)"),
    "secret_key": ("RASEED_SECRET_KEY", "$(openssl rand -hex 32)"),
    "vault_file": ("RASEED_VAULT_FILE", "keys/vending-keys.json"),
    "wrapping_key_file": ("RASEED_WRAPPING_KEY_FILE", "keys/wrapping-key.hex"),
    "site_file": ("RASEED_SITE_FILE", "site.toml"),
    "state_dir": ("RASEED_STATE_DIR", "state"),
    "control_url": ("RASEED_CONTROL_URL", "http://127.0.0.1:8095"),
}


def read_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Read every setting. Raises ValueError naming the variable when a number is not one."""
    source = os.environ if env is None else env

    def number(name: str, default: str) -> float:
        text = source.get(name, "") or default
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{name} must be a number, not {text!r}") from None

    port = int(number("RASEED_PORT", "8080"))
    host = source.get("RASEED_HOST", "127.0.0.1")
    return Settings(
        database_url=source.get("DATABASE_URL", ""),
        mqtt_url=source.get("MQTT_URL", ""),
        mqtt_user=source.get("MQTT_USER", ""),
        mqtt_password_file=source.get("MQTT_PASSWORD_FILE", ""),
        mqtt_ca_file=source.get("MQTT_CA_FILE", ""),
        mqtt_cert_file=source.get("MQTT_CERT_FILE", ""),
        mqtt_key_file=source.get("MQTT_KEY_FILE", ""),
        mqtt_share_group=source.get("MQTT_SHARE_GROUP", ""),
        host=host,
        port=port,
        public_url=source.get("RASEED_PUBLIC_URL", f"http://{host}:{port}"),
        demo=source.get("RASEED_DEMO", "") == "1",
        provider_url=source.get("RASEED_PROVIDER_URL", ""),
        provider_secret=source.get("RASEED_PROVIDER_SECRET", ""),
        secret_key=source.get("RASEED_SECRET_KEY", ""),
        vault_file=source.get("RASEED_VAULT_FILE", ""),
        wrapping_key_file=source.get("RASEED_WRAPPING_KEY_FILE", ""),
        site_file=source.get("RASEED_SITE_FILE", ""),
        state_dir=source.get("RASEED_STATE_DIR", ""),
        control_port=int(number("RASEED_CONTROL_PORT", "8095")),
        control_url=source.get("RASEED_CONTROL_URL", ""),
        speed=number("RASEED_SPEED", "1"),
        town_seed=int(number("RASEED_TOWN_SEED", "1")),
        outage_debounce_s=number("RASEED_OUTAGE_DEBOUNCE_S", "60"),
        headend_name=source.get("RASEED_HEADEND_NAME", "") or "headend-1",
        log_level=source.get("RASEED_LOG_LEVEL", "INFO"),
        log_format=source.get("RASEED_LOG_FORMAT", "") or "text",
        keep_raw_months=int(number("RASEED_KEEP_RAW_MONTHS", "25")),
        keep_hour_months=int(number("RASEED_KEEP_HOUR_MONTHS", "37")),
        keep_day_months=int(number("RASEED_KEEP_DAY_MONTHS", "120")),
        keep_dead_letter_days=int(number("RASEED_KEEP_DEAD_LETTER_DAYS", "90")),
        metrics_host=source.get("RASEED_METRICS_HOST", "") or "127.0.0.1",
        metrics_port=int(number("RASEED_METRICS_PORT", "0")),
    )


def package_dir(package: str) -> Path:
    """Return the folder of one of our packages, where its SQL files lie."""
    import importlib.util

    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"package {package} is not installed")
    return Path(spec.origin).parent
