"""The meters of a soak, as a process of their own: `python -m tests.soak.meters` with the settings of `simulate`."""

from __future__ import annotations

import argparse
import asyncio
import logging
from pathlib import Path

from firmware_sim.crowd import build_crowd
from firmware_sim.fleet import run_town
from raseed.settings import read_settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--meters", type=int, required=True)
    parser.add_argument("--modbus", type=int, required=True)
    parser.add_argument("--telemetry", type=float, required=True)
    options = parser.parse_args()
    settings = read_settings()
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(
        run_town(
            build_crowd(options.meters, modbus=options.modbus),
            mqtt_url=settings.need("mqtt_url"),
            site_file=Path(settings.need("site_file")),
            state_dir=Path(settings.need("state_dir")),
            control_port=settings.control_port,
            speed=settings.speed,
            vault_file=Path(settings.need("vault_file")),
            telemetry_s=options.telemetry,
            journal=True,
        )
    )


if __name__ == "__main__":
    main()
