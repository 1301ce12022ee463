"""The role `simulate`: every meter of the town on its wire, and a control port, in one process."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from firmware_sim.control_server import ControlServer
from firmware_sim.device import Device
from firmware_sim.fleet_control import FleetControl
from firmware_sim.fleet_store import FleetStore
from firmware_sim.meter_state import MeterState, key_identity, new_meter
from firmware_sim.modbus_bus import ModbusBus
from firmware_sim.modbus_server import ModbusTcpServer
from firmware_sim.mqtt_connection import Endpoint
from firmware_sim.mqtt_device import TELEMETRY_MS, MqttMeter
from firmware_sim.register_map import RegisterMap
from firmware_sim.serial_server import SerialServer
from firmware_sim.site_file import BusAddress, read_site
from firmware_sim.town import Town, TownMeter, build_town
from meter_gateway.profile import load_profile
from token_engine.software_vault import SoftwareVault

log = logging.getLogger(__name__)
TICK_S: Final = 1.0
DEVICES_A_TICK: Final = 1_000  # about a tenth of a second of work
GOODBYE_S: Final = 0.3  # for the last packets to leave
CONNECT_THREADS: Final = 2
START_SPREAD_S: Final = 2.0
CALLS_A_SECOND: Final = 300  # what a broker on a small machine takes without refusing anybody
MAX_SPEED: Final = 100_000.0
SPARE_DESCRIPTORS: Final = 256  # buses, the control port, the state file


class Fleet:
    """All devices of a town, who is switched off, and the ticking of their households."""

    def __init__(self, town: Town, store: FleetStore, speed: float) -> None:
        if not 0 <= speed <= MAX_SPEED:
            raise ValueError(f"speed is 0 to {MAX_SPEED:g}, not {speed}")
        self.town = town
        self.speed = speed
        self.devices: dict[str, Device] = {}
        self.radios: dict[str, MqttMeter] = {}
        self._store = store
        self._dark = store.list_dark_nodes()
        self._turn = 0

    def build(self, vault_file: Path) -> None:
        """Make or wake every meter. Keys are derived at the first start only, as their maker would."""
        placed = self._store.list_placed()
        vault: SoftwareVault | None = None
        with self._store.transaction():
            self._store.claim(self.town.seed)
            for meter in (*self.town.meters, *self.town.strangers):
                state = self._store.find_meter(meter.drn)
                if state is None:
                    vault = vault or SoftwareVault.from_file(vault_file)
                    state = new_meter(meter, vault.decoder_key_for(key_identity(meter)))
                if meter.drn in placed:
                    meter = replace(meter, usage_point_code=placed[meter.drn])  # noqa: PLW2901
                self._add(meter, state)

    def _add(self, meter: TownMeter, state: MeterState) -> None:
        device = Device(self.town, meter, state, self._store)
        device.start()
        self.devices[meter.drn] = device

    def tick(self) -> None:
        """One second of the town; of a crowd each second takes its share, so that the wires never wait long."""
        turns = max(1, len(self.devices) // DEVICES_A_TICK)
        self._turn = (self._turn + 1) % turns
        radios = list(islice(self.radios.values(), self._turn, None, turns))
        with self._store.transaction():
            for device in islice(self.devices.values(), self._turn, None, turns):
                device.tick(self.speed)
            for radio in radios:
                radio.measure()
            if self._store.journal:
                self._store.journal.flush()
        for radio in radios:
            radio.tick()

    def health(self) -> dict[str, Any]:
        """Counts for whoever watches the process."""
        return {
            "status": "ok",
            "meters": len(self.devices),
            "online": sum(radio.online for radio in self.radios.values()),
            "speed": self.speed,
            "town_seed": self.town.seed,
        }

    def is_online(self, drn: str) -> bool | None:
        """Whether the broker holds a session of this meter, None for one without a radio."""
        radio = self.radios.get(drn)
        return None if radio is None else radio.online

    def node_of(self, meter: TownMeter) -> str | None:
        """Code of the transformer or zone that feeds this meter, None for a spare."""
        node = self.town.node_of(meter)
        return node.code if node else None

    # -- the network

    def _alive(self, code: str | None) -> bool:
        while code is not None:
            if code in self._dark:
                return False
            code = self.town.node_by_code[code].parent_code
        return True

    def network(self) -> list[dict[str, Any]]:
        """Every node: its own switch, and whether supply reaches it."""
        fed: dict[str, int] = {}
        for device in self.devices.values():
            node = self.node_of(device.meter)
            if node:
                fed[node] = fed.get(node, 0) + 1
        return [
            {
                "code": node.code,
                "commodity": node.commodity,
                "kind": node.kind,
                "parent_code": node.parent_code,
                "name_en": node.name_en,
                "name_ar": node.name_ar,
                "on": node.code not in self._dark,
                "powered": self._alive(node.code),
                "meters": sum(fed.get(code, 0) for code in self.town.nodes_under(node.code)),
            }
            for node in self.town.nodes
        ]

    def power_node(self, code: str, on: bool) -> int:
        """Cut or restore everything under a node; returns how many meters it feeds. Raises KeyError."""
        under = self.town.nodes_under(code)
        if on:
            self._dark -= under
        else:
            self._dark.add(code)
        touched = 0
        with self._store.transaction():
            self._store.keep_dark_nodes(self._dark)
            for device in self.devices.values():
                node = self.node_of(device.meter)
                if node in under:
                    touched += 1
                    device.power(self._alive(node))
        return touched

    def power_meter(self, device: Device, on: bool) -> None:
        """Cut or restore one house. Raises ValueError when its network is dark anyway."""
        if on and not self._alive(self.node_of(device.meter)):
            raise ValueError("the network before this meter is switched off")
        device.power(on)

    def lose_broker(self, seconds: float) -> int:
        """No radio reaches the broker for a while; returns how many that are. Raises UnknownFault."""
        for drn in self.radios:
            self.devices[drn].begin_fault("offline", seconds)
        return len(self.radios)

    def install(self, device: Device, usage_point: str) -> None:
        """A spare goes onto a wall. Raises ValueError for an unknown, taken or unfitting usage point."""
        point = self.town.usage_point_by_code.get(usage_point)
        if point is None or point.commodity != device.meter.commodity:
            raise ValueError("there is no such usage point for this kind of meter")
        if any(one.meter.usage_point_code == usage_point for one in self.devices.values()):
            raise ValueError("this usage point has a meter")
        if device.meter.usage_point_code is not None:
            raise ValueError("this meter hangs on a wall already")
        with self._store.transaction():
            self._store.keep_placed(device.meter.drn, usage_point)
            device.place(replace(device.meter, usage_point_code=usage_point))
            device.power(self._alive(point.node_code))


class Wires:
    """The servers and radios that join a fleet to the outside."""

    def __init__(self, fleet: Fleet, store: FleetStore, telemetry_s: float = TELEMETRY_MS / 1000) -> None:
        self._fleet = fleet
        self._store = store
        self._telemetry_ms = int(telemetry_s * 1000)
        self._servers: list[ModbusTcpServer | SerialServer] = []
        self._threads = ThreadPoolExecutor(CONNECT_THREADS, thread_name_prefix="connect")

    async def start(self, addresses: tuple[BusAddress, ...], endpoint: Endpoint) -> None:
        """Open every bus and call the broker. Raises OSError when a port is taken."""
        layouts: dict[str, RegisterMap] = {}
        known = {address.code for address in addresses}
        for device in self._fleet.devices.values():
            if device.meter.bus and device.meter.bus not in known:
                log.warning("meter %s: the site file has no bus %s", device.meter.drn, device.meter.bus)
        for address in addresses:
            bus = ModbusBus(address.code, converter=address.framer == "tcp", journal=self._store.journal)
            for device in self._fleet.devices.values():
                profile = device.meter.profile
                if device.meter.bus == address.code and profile:
                    layouts.setdefault(profile, RegisterMap(load_profile(profile)))
                    bus.add(device, layouts[profile])
            server = _server_of(bus, address)
            try:
                await server.start()
            except OSError as error:
                raise OSError(error.errno, f"bus {address.code} cannot open: {error.strerror}") from None
            self._servers.append(server)
        dice = random.Random(f"radio:{self._fleet.town.seed}")
        spread_s = max(START_SPREAD_S, len(self._fleet.devices) / CALLS_A_SECOND)
        for drn, device in self._fleet.devices.items():
            if device.meter.link == "mqtt":
                radio = MqttMeter(
                    device, self._store, endpoint, self._threads, dice, telemetry_ms=self._telemetry_ms
                )
                self._fleet.radios[drn] = radio
                radio.start(spread_s)

    async def stop(self) -> None:
        """Close everything; links to serial lines are removed."""
        for radio in self._fleet.radios.values():
            radio.stop()
        for server in self._servers:
            await server.stop()
        await asyncio.sleep(GOODBYE_S)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _server_of(bus: ModbusBus, address: BusAddress) -> ModbusTcpServer | SerialServer:
    if address.tty is not None:
        return SerialServer(bus, address.tty, address.baud)
    return ModbusTcpServer(bus, address.host, address.port, rtu_over_tcp=address.framer == "rtu_over_tcp")


async def run(
    *,
    mqtt_url: str,
    site_file: Path | str,
    state_dir: Path | str,
    control_port: int,
    speed: float,
    town_seed: int,
    vault_file: Path | str,
) -> None:
    """Run every meter of the town until SIGTERM or SIGINT.

    Raises InvalidSite, OtherTown, ValueError, VaultDamaged or OSError when it cannot start.
    """
    await run_town(
        build_town(town_seed),
        mqtt_url=mqtt_url,
        site_file=site_file,
        state_dir=state_dir,
        control_port=control_port,
        speed=speed,
        vault_file=vault_file,
    )


async def run_town(
    town: Town,
    *,
    mqtt_url: str,
    site_file: Path | str,
    state_dir: Path | str,
    control_port: int,
    speed: float,
    vault_file: Path | str,
    telemetry_s: float = TELEMETRY_MS / 1000,
    journal: bool = False,
) -> None:
    """Run every meter of any town; see `run`. MQTT meters tell their readings every `telemetry_s` seconds.

    `journal` keeps all that they ever say, see firmware_sim.journal.
    """
    _allow_descriptors(len(town.meters))
    endpoint = Endpoint.parse(mqtt_url)
    addresses = read_site(Path(site_file))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = FleetStore(Path(state_dir), journal=journal)
    fleet = Fleet(town, store, speed)
    wires = Wires(fleet, store, telemetry_s)
    orders = FleetControl(fleet)
    control = ControlServer(orders.handle, control_port)
    try:
        fleet.build(Path(vault_file))
        # The meters stay: the collector need not walk them, and what comes and goes is looked through sooner,
        # since it waits until a quarter more is there than survived the last time.
        gc.collect()
        gc.freeze()
        await wires.start(addresses, endpoint)
        await control.start()  # last: who is answered here finds every wire open
        log.info("%d meters run, control port %d", len(fleet.devices), control.port)
        await _tick_until(stop, fleet)
    finally:
        orders.stop()
        await control.stop()
        await wires.stop()
        store.close()


def _allow_descriptors(meters: int) -> None:
    """Raise this process's own limit: each radio is a socket. Where the system forbids more, it stays."""
    import resource

    wanted = meters + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


async def _tick_until(stop: asyncio.Event, fleet: Fleet) -> None:
    """Tick every second; a tick that fails is told once and does not end the others."""
    failing = False
    while not stop.is_set():
        try:
            fleet.tick()
            if failing:
                log.warning("the town ticks again")
            failing = False
        except Exception:
            if not failing:
                log.exception("a tick of the town failed")
            failing = True
        try:
            await asyncio.wait_for(stop.wait(), TICK_S)
        except TimeoutError:
            continue
