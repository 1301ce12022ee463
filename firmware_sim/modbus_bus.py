"""The meters of one bus: which unit answers a request, and what its faults make of the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from firmware_sim.device import Device
from firmware_sim.faults import Piece, distort
from firmware_sim.journal import Journal
from firmware_sim.meter import NoPower
from firmware_sim.modbus_frame import (
    GATEWAY_TARGET_SILENT,
    ILLEGAL_VALUE,
    ModbusRefusal,
    Request,
    answer,
    exception_pdu,
    is_write,
)
from firmware_sim.register_map import RegisterMap

BROADCAST: Final = 0
# How long a converter waits for a meter behind it before it says that the meter is silent.
CONVERTER_WAIT_S: Final = 0.2

# A meter that just got its power back starts its own program first; some need half a minute.
SETTLE_MS: Final = 1_000

Framer = Callable[[int, bytes], bytes]


class ModbusBus:
    """Units 1-247 of one line or converter; units that share a profile share its layout."""

    def __init__(self, code: str, *, converter: bool, journal: Journal | None = None) -> None:
        self.code = code
        self._journal = journal
        self._converter = converter
        self._units: dict[int, tuple[Device, RegisterMap]] = {}

    def add(self, device: Device, layout: RegisterMap) -> None:
        """Put a meter on the bus. Raises ValueError when its unit is taken or missing."""
        unit = device.meter.unit
        if unit is None or unit in self._units:
            raise ValueError(f"unit {unit} of bus {self.code} is taken or missing")
        self._units[unit] = (device, layout)

    @property
    def devices(self) -> Iterable[Device]:
        """All meters here."""
        return [device for device, _ in self._units.values()]

    def babbles(self) -> bool:
        """True while some meter throws noise onto the line."""
        return any("babbling" in device.active_faults() for device in self.devices if device.state.powered)

    def serve(self, request: Request, frame: Framer) -> tuple[Piece, ...]:
        """What comes back for one request: nothing, the answer, or what a fault makes of it.

        Nobody answers a broadcast. Behind a converter a silent unit becomes exception 0x0B.
        """
        if request.unit == BROADCAST or not request.pdu:
            return ()
        pieces = self._from_unit(request, frame)
        if not pieces and self._converter:
            silent = exception_pdu(request.pdu[0] & 0x7F, GATEWAY_TARGET_SILENT)
            return (Piece(CONVERTER_WAIT_S, frame(request.unit, silent)),)
        return pieces

    def _from_unit(self, request: Request, frame: Framer) -> tuple[Piece, ...]:
        found = self._units.get(request.unit)
        if found is None:
            return ()
        device, layout = found
        faults = device.active_faults()
        settles = device.clock() - device.booted_ms < max(SETTLE_MS, layout.profile.settle_s * 1000)
        if "dead" in faults or not device.state.powered or settles:
            return ()

        def read(fc: int, address: int, count: int) -> Sequence[int]:
            if self._journal:
                self._journal.answered(device.state, device.clock())
            return layout.read((fc, address, count), state=device.state, now_ms=device.clock(), faults=faults)

        def write(address: int, words: Sequence[int]) -> None:
            order = layout.order(address, words)
            try:
                device.run_command(order.command, order.kind, order.argument)
            except (ValueError, NoPower):
                raise ModbusRefusal(ILLEGAL_VALUE) from None

        pdu = answer(request.pdu, read, write)
        return distort(request.unit, pdu, frame, faults, is_write(request.pdu))
