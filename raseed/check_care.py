"""The check's steps about people: an outage from last gasp to restoration, a ticket from open to resolved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raseed.check_town import CheckTown

if TYPE_CHECKING:
    from raseed.check import Step


class CareSteps:
    """Steps of outage and ticket."""

    def __init__(self, town: CheckTown) -> None:
        self.town = town

    def steps(self) -> Sequence[tuple[str, Step]]:
        """Name and coroutine of each step."""
        return ()
