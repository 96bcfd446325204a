"""Stories: what clients do and what goes wrong, as data that a test makes up, a world plays, and a failure prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..client import ClientState
from ..errors import LocalError
from .world import World

__all__ = [
    "Action",
    "CrashServer",
    "CutConnection",
    "DrainServer",
    "JoinRoom",
    "LeaveRoom",
    "LetRun",
    "Publish",
    "Send",
    "StartClient",
    "StopClient",
    "TrimRoom",
    "play",
]


@dataclass(frozen=True, slots=True)
class JoinRoom:
    """A client joins a room, at its head less `last` messages."""

    client: int
    room: str
    last: int = 0


@dataclass(frozen=True, slots=True)
class LeaveRoom:
    """A client leaves a room."""

    client: int
    room: str


@dataclass(frozen=True, slots=True)
class Publish:
    """A client publishes into a room; guards see it, and it is sent again until it is answered."""

    client: int
    room: str
    type: str
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Send:
    """A client sends a message to the application, at most once: not at all while it is not connected."""

    client: int
    type: str
    payload: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class StopClient:
    """A client closes and stays closed."""

    client: int


@dataclass(frozen=True, slots=True)
class StartClient:
    """A client that was stopped comes back."""

    client: int


@dataclass(frozen=True, slots=True)
class CutConnection:
    """A client's connection breaks; it comes back by itself."""

    client: int


@dataclass(frozen=True, slots=True)
class CrashServer:
    """The server dies, and another one follows; with `restore` on the log's last backup."""

    restore: bool = False


@dataclass(frozen=True, slots=True)
class DrainServer:
    """The server shuts down in order, and another one follows."""


@dataclass(frozen=True, slots=True)
class TrimRoom:
    """A room's log is trimmed up to an offset."""

    room: str
    upto: int


@dataclass(frozen=True, slots=True)
class LetRun:
    """So many steps happen."""

    steps: int


Action: TypeAlias = (
    JoinRoom
    | LeaveRoom
    | Publish
    | Send
    | StopClient
    | StartClient
    | CutConnection
    | CrashServer
    | DrainServer
    | TrimRoom
    | LetRun
)
"""One thing that happens in a story."""


def play(world: World, story: Iterable[Action], *, settle: bool = True) -> None:
    """Lets a story happen, and the world settle behind it; a new world settles before it too, so all are connected.

    What cannot be done is passed over: a second join, a publish of a client that has too many. Clients are numbered
    from 0, and a number beyond the last begins again at 0. Raises: `OracleFailed`.
    """
    if not world.turn:
        world.settle()
    for action in story:
        try:
            _do(world, action)
        except LocalError:
            continue
    if settle:
        world.settle()


def _do(world: World, action: Action) -> None:
    match action:
        case LetRun(steps):
            world.run(steps)
        case CrashServer(restore):
            world.crash(restore=restore)
        case DrainServer():
            world.drain()
        case TrimRoom(room, upto):
            world.trim(room, upto)
        case _:
            _act(world, action)


def _act(
    world: World, action: JoinRoom | LeaveRoom | Publish | Send | StopClient | StartClient | CutConnection
) -> None:
    index = action.client % len(world.clients)
    client = world.client(index)
    match action:
        case JoinRoom(_, room, last):
            client.join(room, last=last)
        case LeaveRoom(_, room):
            client.leave(room)
        case Publish(_, room, type, payload):
            client.publish(room, type, dict(payload))
        case Send(_, type, payload):
            client.send(type, dict(payload))
        case StopClient():
            client.stop()
        case StartClient():
            if client.state is ClientState.STOPPED:
                client.start()
        case CutConnection():
            world.cut(index)
