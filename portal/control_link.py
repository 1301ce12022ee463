"""The town page's line to the simulator: faces of meters, keypads, and switches of the network."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import msgspec

TIMEOUT_S = 2.0  # the simulator is on this machine: what takes longer is not coming, and a page waits for it
CONTROL_HEADER = {"X-Raseed-Control": "1"}
T = TypeVar("T")
MAX_TYPED = 200  # a person's token with separators; the meter itself refuses what is longer

# The control port speaks plain HTTP on the loopback, so no list of certificates is read for it.
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class SimulatorUnavailable(Exception):
    """The simulator does not answer, or answers what we do not understand."""


class MeterDark(Exception):
    """The meter has no power, so nobody can type at it."""


class NotInTown(Exception):
    """The simulator has no such meter or network node."""


class Face(msgspec.Struct, frozen=True):
    """What a person sees who stands before a meter. Credit and counter in Wh or mL, load in W or mL/h.

    `lamp` is off, red, amber or green; `supply` says whether the network before the meter is alive. A water
    meter lives on a battery: it stays `powered` when only its flow stops. No lines of display: it is dead.
    """

    drn: str
    commodity: str
    link: str
    model: str
    display: list[str]
    credit: int
    counter: int
    load: int
    relay: int
    relay_reason: str
    lamp: str
    tamper: bool
    powered: bool
    supply: bool
    network_node: str | None = None
    locked_until_ms: int | None = None
    last_token_result: str | None = None
    online: bool | None = None  # whether the broker knows an MQTT meter; None for the others

    @property
    def flows(self) -> bool:
        """Power or water reaches the house."""
        return self.relay == 1 and self.powered and self.supply


class KeypadAnswer(msgspec.Struct, frozen=True):
    """What a meter answers to digits: the result's name, its code on the display, its lines, the credit."""

    result: str
    code: int
    display: list[str]
    credit: int


class NodePower(msgspec.Struct, frozen=True):
    """One part of the network as the simulator has it; `on` is its own switch."""

    code: str
    on: bool


class ControlLink:
    """Asks the simulator's control port; every question ends within TIMEOUT_S."""

    def __init__(self, control_url: str) -> None:
        self._url = control_url

    async def list_faces(self) -> list[Face]:
        """Every meter's face. Raises SimulatorUnavailable."""
        return _read(await self._ask("GET", "/meters"), list[Face])

    async def get_face(self, drn: str) -> Face:
        """One meter's face. Raises NotInTown, SimulatorUnavailable."""
        return _read(await self._ask("GET", f"/meters/{quote(drn, safe='')}"), Face)

    async def list_power(self) -> dict[str, bool]:
        """Whether the switch of each network node is on, by its code. Raises SimulatorUnavailable."""
        return {node.code: node.on for node in _read(await self._ask("GET", "/network"), list[NodePower])}

    async def press_keypad(self, drn: str, digits: str) -> KeypadAnswer:
        """Type digits at a meter. Raises NotInTown, MeterDark, SimulatorUnavailable."""
        path = f"/meters/{quote(drn, safe='')}/keypad"
        return _read(await self._ask("POST", path, {"digits": digits[:MAX_TYPED]}), KeypadAnswer)

    async def press_button(self, drn: str) -> None:
        """Press the button of a meter that waits for it. Raises NotInTown, MeterDark, SimulatorUnavailable."""
        await self._ask("POST", f"/meters/{quote(drn, safe='')}/button", {})

    async def hang(self, drn: str, usage_point: str) -> None:
        """Put a meter from the shelf onto the wall of a house.

        Raises NotInTown, SimulatorUnavailable (also when the wall is taken or the meter hangs already).
        """
        await self._ask("POST", f"/meters/{quote(drn, safe='')}/install", {"usage_point": usage_point})

    async def set_power(self, node: str, *, on: bool) -> None:
        """Cut or restore all that a node feeds. Raises NotInTown, SimulatorUnavailable."""
        await self._ask("POST", f"/network/{quote(node, safe='')}/power", {"on": on})

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        if not self._url:
            raise SimulatorUnavailable("no control address is set")
        try:
            async with httpx.AsyncClient(
                timeout=TIMEOUT_S, verify=_NO_CERTIFICATES, trust_env=False
            ) as client:
                answer = await client.request(method, self._url + path, json=body, headers=CONTROL_HEADER)
        except httpx.HTTPError as error:
            raise SimulatorUnavailable(type(error).__name__) from error
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise NotInTown(path)
        if answer.status_code == HTTPStatus.CONFLICT:
            raise MeterDark(path)
        if answer.status_code != HTTPStatus.OK:
            raise SimulatorUnavailable(f"the control port answered {answer.status_code}")
        return answer.content


def _read(content: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.MsgspecError as error:
        raise SimulatorUnavailable(f"the control port's answer is not understood: {error}") from error
