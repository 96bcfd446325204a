"""A whole world in one seed: a hub and its application, clients, a network, a store and the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from ..app.chat import build as build_chat
from ..config import HubConfig
from ..message import encode_json
from ..protocols import Consumer
from .acting import act
from .app_server import SimServer
from .client import Client
from .ending import check_end, what_keeps
from .faults import Faults, Habits, tight_config
from .going_wrong import go_wrong
from .handler_oracle import Allowance, HandlerOracle
from .journal import Journal
from .mangling import Mangler
from .misbehaving import WildClient
from .network import Network, Peer
from .oracle import OracleFailed, check
from .policing import GrantOracle, Policing, token_of
from .profile import Profile, know_users, profiles_of
from .server import Build, Server
from .store import SimStore, Truth
from .streams import Chance
from .trace import Trace

__all__ = ["World"]

_TICK_S = 0.04
"""The longest time between two steps."""
_LEAP_S = 3.0
"""Now and then more time passes at once, up to this."""
_WALL_ZERO = datetime(2030, 1, 1, tzinfo=UTC)
_SETTLE_STEPS = 4_000
"""Passes after which a world that is not settled never will be; 150 worlds needed 244 at most."""


class World:
    """One simulated world. The same arguments and the same calls give the same bytes, always.

    `build` registers the application's handlers on what it is given, a `SimServer`. `clients`, so many or one for each
    `Profile`, are well-behaved and started at once; `wild` more break rules of their own. `config` has small limits
    unless given. `habits` make clients act by themselves; without them only what is called on `client(i)` happens.
    `without` leaves faults out: `(kind, number)` as counted in `injected`. `policed`: users prove who they are, and
    what they may do changes. `origins` are pages that may connect, besides the server's own. `allow` names what an
    application may do and `settle` else fails for: `handler_raises`, `stored_twice`, `mid_reused`.

    Oracles judge every step; `run`, `settle` and every call raise `OracleFailed` where one says no, with what
    happened before as a note.
    """

    def __init__(
        self,
        seed: int | str,
        *,
        build: Build = build_chat,
        clients: int | Sequence[Profile] = 4,
        wild: int = 0,
        config: HubConfig | None = None,
        faults: Faults | None = None,
        habits: Habits | None = None,
        without: frozenset[tuple[str, int]] = frozenset(),
        policed: bool = False,
        origins: tuple[str, ...] = (),
        allow: Collection[Allowance] = (),
    ) -> None:
        self.seed: int | str = seed
        self.config: HubConfig = config if config is not None else tight_config()
        self.faults: Faults = faults if faults is not None else Faults()
        self.habits: Habits | None = habits
        self.now: float = 0.0
        self.steps: int = 0
        """Steps run so far."""
        self.turn: int = 0
        """Counts steps, those of `settle` included."""
        self.traces: list[Trace] = []
        """One per run of the server."""
        self.counts: dict[str, int] = {}
        """Messages of the protocol that servers sent, by type and outcome."""
        self.journal: Journal = Journal()
        """What happened, in words; where clients act by themselves only what the world does."""
        self._build = build
        self._origins = origins
        self._profiles = profiles_of(clients, token_of if policed else None)
        self._chance = Chance(seed, without)
        self._network = Network(self._chance, self.faults)
        self._store = SimStore("e1", self._chance, self.faults, self.wall)
        self._handlers_judge = HandlerOracle(lambda: self.truth, self._network.name_of, allow)
        self._store.kept = self._handlers_judge.kept
        self._policing: Policing | None = Policing(self._chance, self.clock) if policed else None
        self.grants: list[GrantOracle] = []
        """One per run of a server with rules."""
        self._server: Server | None = None
        self._up_at = 0.0
        self._calm = False
        self._start_server()
        stream = self._chance.of("clients")
        self._appended: Counter[tuple[str, bytes]] = Counter()
        self.clients: tuple[Client, ...] = tuple(self._client(at, one) for at, one in enumerate(self._profiles))
        usual = habits if habits is not None else Habits()
        self.wild: tuple[WildClient, ...] = tuple(
            WildClient(at, self._network, self._chance, usual, lambda: self.truth) for at in range(wild)
        )
        peers: tuple[Peer, ...] = (*self.clients, *self.wild)
        for peer in peers:
            peer.slow = stream.random() < self.faults.slow
        for client in self.clients:
            client.lags = stream.random() < self.faults.slow
            client.start()

    def _client(self, at: int, profile: Profile) -> Client:
        mangler, key = Mangler(self._chance, self.faults, at), self._key(f"client {at}")
        journal = self.journal if self.habits is None else None
        return Client(at, self._network, self.clock, key, profile=profile, mangler=mangler, journal=journal)

    # ---- what can be looked at ------------------------------------------------------------------

    def client(self, index: int) -> Client:
        """A client to give commands to, and to ask what it saw."""
        return self.clients[index]

    def clock(self) -> float:
        """The time, in seconds since the world began."""
        return self.now

    def wall(self) -> str:
        """The time as RFC 3339 UTC text."""
        return (_WALL_ZERO + timedelta(seconds=self.now)).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def truth(self) -> Truth:
        """What the log holds and held."""
        return self._store.truth

    @property
    def server(self) -> Server | None:
        """The present run of the server; None while there is none."""
        return self._server

    @property
    def injected(self) -> dict[str, int]:
        """How many faults of each kind happened so far, those left out included."""
        return dict(self._chance.injected)

    @property
    def digest(self) -> str:
        """A hash over all that passed the doors of all servers so far."""
        return blake2b("".join(trace.digest for trace in self.traces).encode(), digest_size=16).hexdigest()

    # ---- what lets time pass --------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Lets so many steps happen, with all that goes wrong. Raises: `OracleFailed`."""
        with self._told():
            for _ in range(steps):
                self._step()

    def settle(self) -> None:
        """Heals everything, waits until everybody has everything, and judges the end. Raises: `OracleFailed`.

        An application fails it whose handler raised, stored a payload twice for one message, or used a `mid` for two
        contents, unless the world allows that.
        """
        with self._told():
            self._settle()

    @contextmanager
    def _told(self) -> Generator[None]:
        """Adds to a failure what happened before it."""
        try:
            yield
        except OracleFailed as exc:
            exc.add_note(f"in world {self.seed!r} at step {self.steps}, {self.now:.3f} s:\n{self.journal}")
            raise

    def _settle(self) -> None:
        self._be_calm(True)
        lacking = "nothing was looked at"
        # A room that could not be read rests at most 16 times as long; then only bytes not taken hold a member up.
        read_again_at = self.now + 17 * self.config.store_retry_s
        for _ in range(_SETTLE_STEPS):
            self._handlers_judge.judge()
            if self._pass() or self._wake_rooms():
                continue
            if self.now >= read_again_at and self._server is not None and self._store.is_idle:
                standing = self._server.door.stands()
                check(not standing, f"nothing more happens by itself, but {standing}")
            lacking = self.lacks()
            if not lacking:
                break
            check(self._leap(read_again_at), f"the world stands still, but {lacking}")
        else:
            raise OracleFailed(f"the world does not settle: {lacking}")
        self._handlers_judge.judge()
        check_end(self.clients, self._store.log, self._appended + self._handlers_judge.by_handlers)
        self._be_calm(False)

    def cut(self, index: int) -> None:
        """Breaks the connection of a client now."""
        self.journal.say(f"the connection of client {index} is cut")
        for wire in tuple(self._network.wires.values()):
            if wire.peer is self.clients[index]:
                self._network.cut(wire)

    def crash(self, *, restore: bool = False) -> None:
        """Kills the server; another one follows. `restore`: on the log's last backup."""
        server = self._server
        if server is None:
            return
        if not server.drained:
            self.journal.say("the server dies" + (", and its log is restored from the last backup" if restore else ""))
        self._server = None
        self._up_at = self.now + self._chance.of("down").random()
        self._network.server_died()
        new_epoch = restore and self._chance.of("epochs").random() < self.faults.new_epoch
        self._store.server_ended(restore, new_epoch)
        server.end()
        for name, count in server.door.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count

    def drain(self) -> None:
        """Shuts the server down in order; another one follows."""
        if self._server is not None:
            self.journal.say("the server is shut down")
            self._server.shut_down(2.0)

    def trim(self, room: str, upto: int) -> None:
        """Trims a room's log up to an offset."""
        self.journal.say(f"{room!r} is trimmed up to {upto}")
        self._store.trim(room, upto)

    def append(self, room: str, type: str, payload: object) -> None:
        """Appends to a room's log beside the server, as a program with the same store does."""
        data = encode_json(payload)
        self._appended[room, data] += 1
        self._store.append(room, type, data)

    def lose_log(self, *, new_epoch: bool = False) -> bool:
        """The log becomes its last backup under the running server, as a log of another epoch with `new_epoch`.

        False, and nothing, while the store has work.
        """
        lost = self._store.go_back(new_epoch)
        if lost:
            self.journal.say("the log becomes its last backup under the server" + (", of another epoch" * new_epoch))
        return lost

    def back_up(self) -> None:
        """Makes the log as it is now the last backup."""
        self._store.back_up()

    # ---- a step ---------------------------------------------------------------------------------

    def _step(self) -> None:
        self.steps += 1
        self.turn += 1
        time = self._chance.of("time")
        self.now += time.random() * (_LEAP_S if time.random() < self.faults.leap else _TICK_S)
        parts: list[Callable[[], object]] = [
            self._times,
            self._network.step,
            self._store.step,
            self._handlers,
            self._act,
        ]
        self._chance.of("parts").shuffle(parts)
        for part in parts:
            part()
        self._server_step()
        self._network.break_some()
        go_wrong(self, self._chance, self._store)

    def _pass(self) -> bool:
        """One pass over everything, in calm; whether anything moved."""
        self.turn += 1
        moved = self._server_step()
        for part in (self._times, self._network.step, self._store.step, self._handlers):
            moved = part() or moved
        return moved

    def _wake_rooms(self) -> bool:
        """Something happens in rooms whose log is another one, which nobody can know before."""
        rooms = self._store.silent_rooms()
        for room in rooms:
            self.append(room, "after", {"n": self.turn})
        return bool(rooms)

    def _times(self) -> bool:
        moved = self._server is not None and self._server.time(self.now)
        for client in self.clients:
            moved = client.time(self.now) or moved
            client.check_alive()
        return moved

    def _handlers(self) -> bool:
        moved = self._server is not None and self._server.handlers_step(self._calm)
        for client in self.clients:
            if self._calm or self._chance.of("lag").random() < 0.1:
                moved = client.handle_some(1_000 if self._calm else 4) or moved
        return moved

    def _act(self) -> None:
        habits = self.habits
        if habits is None:
            return
        for client in self.clients:
            stream = self._chance.of(f"habits {client.index}")
            if stream.random() < habits.act:
                act(client, habits, self._chance, self.truth)
        for wild in self.wild:
            if self._chance.of(f"habits of wild {wild.index}").random() < habits.act:
                wild.act()
        if self._policing is not None and self._server is not None:
            users = [f"user{client.index}" for client in self.clients]
            self._policing.act(self._server.app, users, habits.rooms)
        stream = self._chance.of("direct")
        if stream.random() < habits.direct:
            self.append(stream.choice(habits.rooms), "direct", {"n": self.steps})

    # ---- the server -----------------------------------------------------------------------------

    def _key(self, purpose: str) -> bytes:
        return blake2b(f"{self.seed}/{purpose}".encode(), digest_size=16).digest()

    def _start_server(self) -> None:
        consumers: list[Consumer] = [self._network, self._store]
        if self._policing is not None:
            self.grants.append(GrantOracle())
            consumers.append(self.grants[-1])
        server = self._server = Server(
            self.config,
            self._build_known,
            seed=self._key(f"hub {len(self.traces)}"),  # As a process draws a new one at each start.
            clock=self.clock,
            chance=self._chance,
            truth=self.truth,
            turn=lambda: self.turn,
            consumers=consumers,
            handlers=self._handlers_judge,
            name_of=self._network.name_of,
            journal=self.journal if self.habits is None else None,
            origins=self._origins,
        )
        self.traces.append(server.trace)
        self._network.post = self._store.post = server.post

    def _build_known(self, server: SimServer) -> None:
        self._build(server)
        if self._policing is not None:
            self._policing.register(server)
        know_users(server, self._profiles)

    def _server_step(self) -> bool:
        if self._server is not None and self._server.drained:
            self.crash()
            return True
        if self._server is None and self.now >= self._up_at:
            self._start_server()
            return True
        return False

    # ---- the end --------------------------------------------------------------------------------

    def _be_calm(self, calm: bool) -> None:
        self._calm = self._network.calm = self._store.calm = calm
        for client in self.clients:
            client.mangler.calm = calm
        if self._policing is not None:
            self._policing.calm = calm
        if calm:
            self._store.tell_all()

    def _leap(self, stop: float) -> bool:
        """Lets time pass up to the next thing that waits for it, or to `stop`; False where there is none."""
        due = [when for client in self.clients if (when := client.machine.next_deadline()) is not None]
        if self._server is not None:
            when = self._server.hub.next_deadline()
            if when is not None:
                due.append(when)
        else:
            due.append(self._up_at)
        if self.now < stop:
            due.append(stop)
        if not due:
            return False
        self.now = max(self.now, min(due))
        return True

    def lacks(self) -> str:
        """What keeps the world from being settled, in words; "" for nothing."""
        if self._server is None:
            return "the server is down"
        return what_keeps(self._server, self._network, self._store, self.clients)
