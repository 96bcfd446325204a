"""What goes wrong with a world's server and its log, by chance."""

from __future__ import annotations

from typing import Protocol

from .faults import Faults
from .store import SimStore, Truth
from .streams import Chance

__all__ = ["GoesWrong", "go_wrong"]


class GoesWrong(Protocol):
    """What a world lets happen to its server and its log."""

    @property
    def faults(self) -> Faults:
        """What goes wrong, and how often."""
        ...

    @property
    def truth(self) -> Truth:
        """What the log holds."""
        ...

    @property
    def server(self) -> object | None:
        """The present server."""
        ...

    def trim(self, room: str, upto: int, /) -> object:
        """Trims one room's log."""
        ...

    def back_up(self) -> object:
        """Keeps a copy of the log."""
        ...

    def crash(self, *, restore: bool) -> object:
        """The server's process ends."""
        ...

    def drain(self) -> object:
        """The server is told to stop."""
        ...

    def lose_log(self, *, new_epoch: bool) -> object:
        """The log becomes the last backup under the server."""
        ...


def go_wrong(world: GoesWrong, chance: Chance, store: SimStore) -> None:
    """Lets one step's faults happen, as the world's `faults` say."""
    faults = world.faults
    if chance.fault("trim", faults.trim):
        stream = chance.of("trims")
        rooms = store.log.rooms()
        if rooms:
            room = stream.choice(rooms)
            world.trim(room, stream.randint(0, world.truth.head(room)))
    if chance.of("backups").random() < 0.01:
        world.back_up()
    if chance.fault("crash", faults.crash):
        world.crash(restore=chance.fault("restore", faults.restore))
    if chance.fault("drain", faults.drain):
        world.drain()
    if world.server is not None:
        for kind, rate in (("log_back", faults.log_back), ("log_other", faults.log_other)):
            if rate and chance.fault(kind, rate):
                world.lose_log(new_epoch=kind == "log_other")
