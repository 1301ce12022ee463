"""What this room refuses, as domain errors that know no HTTP."""


class MeterGatewayError(Exception):
    """Any refusal of this room."""


class MeterNotFound(MeterGatewayError):
    """No meter has this number."""


class MeterHasNoLink(MeterGatewayError):
    """The meter cannot be reached by wire: a keypad meter, or a Modbus meter without a bus."""


class InvalidMeter(MeterGatewayError):
    """A meter, place or installation that contradicts what is known."""


class InvalidCommand(MeterGatewayError):
    """A command whose kind, argument or expiry makes no sense."""


class MeterTampered(InvalidCommand):
    """A meter whose lid was opened is not closed from afar: a person looks at it first."""


class CommandConflict(MeterGatewayError):
    """The idempotency key was used for another command before."""


class CommandNotFound(MeterGatewayError):
    """No command has this number."""


class CommandNotOpen(MeterGatewayError):
    """The command has left for its meter and cannot be called back."""


class InvalidTask(MeterGatewayError):
    """A site task that makes no sense; `reason` is a short code for whoever words it."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class TaskConflict(MeterGatewayError):
    """The idempotency key was used for another site task before."""


class TaskNotFound(MeterGatewayError):
    """No site task has this number."""
