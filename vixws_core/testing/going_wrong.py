"""What goes wrong with a world's server and its log, by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .store import SimStore
from .streams import Chance

if TYPE_CHECKING:
    from .world import World

__all__ = ["go_wrong"]


def go_wrong(world: World, chance: Chance, store: SimStore) -> None:
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
