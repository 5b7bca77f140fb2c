"""What a fault strikes: a host, and of it a VM, a link or a place on its disk; or the conductor of a move."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from refimpl.lab.links import Direction


class Place(StrEnum):
    """A directory that a move writes to: the hosts' shared one, the controller's home, the group store's."""

    SHARED = "shared"
    HOME = "home"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be struck; a fault needs those of the fields that its declaration names.

    `rate_mbit_s`: Mbit/s in each direction. `home`: the controller's home directory, for that place. `operation`: whose
    conductor, empty for the only one that runs.
    """

    host: str = ""
    vm: str = ""
    network: str = ""
    direction: Direction = Direction.TO
    rate_mbit_s: int = 1
    place: Place = Place.SHARED
    home: Path | None = None
    operation: str = ""
