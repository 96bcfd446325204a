"""A simulated world to test a hub, an application or a protocol in: no sockets, no waiting, one seed.

```python
from vixws_core.testing import World

world = World(7, build=my_chat.build, clients=3)   # `build(router)` registers the application's handlers
world.client(0).join("africa", last=10)
world.client(1).publish("africa", "note", {"text": "Hi"})
world.run(200)                                     # slow readers, cut connections, a failing store, restarts
world.settle()                                     # heals all of it, and waits until everybody has everything
assert world.client(0).offsets("africa") == [1]
```

Oracles judge every step by the rules of the wire protocol and raise `OracleFailed`; the world's seed is all that
is needed to see it again. `Faults` says what goes wrong and how often (`NO_FAULTS`: nothing), `Habits` lets
clients act by themselves, `varied_world` and `run_varied` make and run worlds with everything in them, and
`python -m vixws_core.testing BASE COUNT` runs many. `world.server.trace` keeps what passed the door; its `replay`
hands it to a fresh hub. Handlers may be plain, `async` (each await ends a step) or `thread=True`.
"""

from .app_server import SimServer
from .bounds import group_bytes_max, held_bytes_max
from .client import Client, Seen, Told
from .faults import NO_FAULTS, Faults, Habits, roomy_config, tight_config
from .hub_oracle import DoorOracle
from .oracle import OracleFailed, check
from .profile import Profile
from .scenarios import faults_that_count, run_varied, varied_world
from .store import SimStore, Truth
from .trace import Trace
from .world import World

__all__ = [
    "NO_FAULTS",
    "Client",
    "DoorOracle",
    "Faults",
    "Habits",
    "OracleFailed",
    "Profile",
    "Seen",
    "SimServer",
    "SimStore",
    "Told",
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
