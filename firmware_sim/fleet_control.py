"""What the control port can ask of a fleet: routes to meters and to the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from firmware_sim import meter_face
from firmware_sim.control_server import ControlRequest, Refused
from firmware_sim.faults import FAULTS, MAX_FAULT_S, UnknownFault
from firmware_sim.meter import NoPower
from firmware_sim.meter_state import PER_TENTH
from firmware_sim.scenario import InvalidScenario, load_scenario, scenario_names
from firmware_sim.scenario_player import ScenarioPlayer, ScenarioRuns

if TYPE_CHECKING:
    from firmware_sim.device import Device
    from firmware_sim.fleet import Fleet

MAX_UNITS: Final = 10_000_000
MAX_TYPED: Final = 200


class FleetControl:
    """Answers the control port for one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._player = ScenarioPlayer(fleet)

    def stop(self) -> None:
        """Break off what is being played."""
        self._player.stop()

    async def handle(self, request: ControlRequest) -> Any:
        """The JSON-able answer. Raises Refused."""
        match request.method, request.path:
            case "GET", ("health",):
                return self._fleet.health()
            case "GET", ("faults",):
                return {name: {"lasts": kind.lasts, "meaning": kind.meaning} for name, kind in FAULTS.items()}
            case "GET", ("meters",):
                return [self._face(device) for device in self._fleet.devices.values()]
            case "GET", ("network",):
                return self._fleet.network()
            case "GET", ("scenarios",):
                titles = {name: load_scenario(name).title for name in scenario_names()}
                return {"scenarios": titles} | self._player.face()
            case "GET", ("meters", drn):
                return self._face(self._device(drn))
            case "GET", ("meters", drn, "store"):
                return meter_face.shelf(self._device(drn).state)
            case "POST", ("scenarios", name):
                return self._play(name)
            case "POST", ("broker_loss",):
                return self._lose_broker(request.body)
            case "POST", ("network", code, "power"):
                return self._network_power(code, request.body)
            case "POST", ("meters", drn, action):
                return self._act(self._device(drn), action, request.body)
        raise Refused(404, "there is no such thing here")

    def _play(self, name: str) -> dict[str, Any]:
        try:
            self._player.play(name, load_scenario(name))
        except KeyError:
            raise Refused(404, "there is no such scenario") from None
        except ScenarioRuns as error:
            raise Refused(409, str(error)) from None
        except InvalidScenario as error:
            raise Refused(400, str(error)) from None
        return self._player.face()

    def _device(self, drn: str) -> Device:
        device = self._fleet.devices.get(drn)
        if device is None:
            raise Refused(404, "there is no meter of this number")
        return device

    def _face(self, device: Device) -> dict[str, Any]:
        node = self._fleet.node_of(device.meter)
        face = meter_face.face(device.meter, device.state, node, device.clock())
        return face | {
            "faults": sorted(device.active_faults()),
            "online": self._fleet.is_online(device.meter.drn),
        }

    def _act(self, device: Device, action: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            match action:
                case "keypad":
                    return self._keypad(device, body)
                case "button":
                    device.press_button()
                case "burn":
                    units = _number(body, "units", MAX_UNITS)
                    device.burn(int(units * 10 * PER_TENTH[device.meter.commodity]))
                case "power":
                    self._fleet.power_meter(device, _flag(body, "on"))
                case "install":
                    self._fleet.install(device, str(body.get("usage_point", "")))
                case "fault":
                    self._fault(device, body)
                case _:
                    raise Refused(404, "a meter has keypad, button, burn, power, install and fault")
        except NoPower:
            raise Refused(409, "the meter has no power") from None
        except (UnknownFault, ValueError) as error:
            raise Refused(400, str(error)) from None
        return self._face(device)

    def _keypad(self, device: Device, body: dict[str, Any]) -> dict[str, Any]:
        digits = body.get("digits")
        if not isinstance(digits, str) or len(digits) > MAX_TYPED:
            raise Refused(400, "digits is a text of at most 200 characters")
        answer = device.type_token(digits)
        return {
            "result": answer.result.name,
            "code": answer.result.display_code,
            "tid": answer.tid,
            "amount_tenths": answer.amount_tenths,
            "display": meter_face.display(device.state, device.clock()),
            "credit": device.state.credit,
            "relay": device.state.relay,
        }

    @staticmethod
    def _fault(device: Device, body: dict[str, Any]) -> None:
        name = body.get("name")
        if name == "none":
            device.clear_faults()
        elif isinstance(name, str):
            device.begin_fault(name, _number(body, "seconds", 86_400, missing=60))
        else:
            raise Refused(400, "name is the name of a fault, or none to end them all")

    def _lose_broker(self, body: dict[str, Any]) -> dict[str, Any]:
        seconds = _number(body, "seconds", MAX_FAULT_S)
        try:
            return {"seconds": seconds, "meters": self._fleet.lose_broker(seconds)}
        except UnknownFault as error:
            raise Refused(400, str(error)) from None

    def _network_power(self, code: str, body: dict[str, Any]) -> dict[str, Any]:
        on = _flag(body, "on")
        try:
            touched = self._fleet.power_node(code, on)
        except KeyError:
            raise Refused(404, "there is no such network node") from None
        return {"code": code, "on": on, "meters": touched}


def _number(body: dict[str, Any], name: str, largest: float, missing: float | None = None) -> float:
    value = body.get(name, missing)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
        raise Refused(400, f"{name} is a number from 0 to {largest}")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool):
        raise Refused(400, f"{name} is true or false")
    return value
