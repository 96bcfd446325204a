"""A simulated world to test a hub, an application or a protocol in: no sockets, no waiting, one seed."""

from .client import Client, Seen
from .door import DoorOracle, group_bytes_max, held_bytes_max
from .failed import OracleFailed, check
from .faults import NO_FAULTS, Faults, Habits, roomy_config, tight_config
from .store import SimStore, Truth
from .trace import Trace
from .varied import faults_that_count, run_varied, varied_world
from .world import World

__all__ = [
    "NO_FAULTS",
    "Client",
    "DoorOracle",
    "Faults",
    "Habits",
    "OracleFailed",
    "Seen",
    "SimStore",
    "Trace",
    "Truth",
    "World",
    "check",
    "faults_that_count",
    "group_bytes_max",
    "held_bytes_max",
    "roomy_config",
    "run_varied",
    "tight_config",
    "varied_world",
]
