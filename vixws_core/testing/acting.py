"""What a well-behaved client of a world does by itself."""

from __future__ import annotations

from random import Random

from ..client import ClientState
from ..errors import LocalError
from ..message import Json
from .client import Client
from .faults import Habits
from .store import Truth
from .streams import Chance

__all__ = ["act"]


def _question(stream: Random, head: int) -> Json:
    asked: dict[str, Json] = {"limit": stream.randint(1, 9)}
    if stream.random() < 0.6:
        asked[stream.choice(("before", "after"))] = stream.randint(0, head + 1)
    return asked


def act(client: Client, habits: Habits, chance: Chance, truth: Truth) -> None:
    """Lets a client do one thing of its habits; what its machine refuses is not done."""
    stream = chance.of(f"habits {client.index}")
    room = stream.choice(habits.rooms)
    choice = stream.random()
    try:
        if client.state is ClientState.STOPPED:
            client.start()
        elif choice < 0.25:
            client.join(room, last=stream.choice((0, 0, 3, 30)))
        elif choice < 0.32:
            client.leave(room)
        elif choice < 0.8:
            size = stream.randint(0, habits.payload_bytes)
            if stream.random() < 0.125:
                size = min(20 * size, habits.payload_max)
            number = len(client.asked) + len(client.settled)
            payload = {"by": client.index, "n": number, "pad": "y" * size}
            # Keys that other clients use too: a key belongs to its sender.
            mid = f"n{number}" if stream.random() < 0.5 else None
            if stream.random() < 0.1:
                mid = client.next_number(room, anew=stream.random() < 0.2)
            client.publish(
                room, stream.choice(habits.types), payload, mid=mid, kind="event" if stream.random() < 0.8 else "memo"
            )
        elif choice < 0.87:
            client.request("$position", room)
        elif choice < 0.94:
            client.request("$history", room, _question(stream, truth.head(room)))
        elif choice < 0.96 and habits.sends:
            client.send(stream.choice(habits.sends), {"n": stream.randint(0, 99)})
        elif choice < 0.99:
            client.send(
                "chat.message", {"room": room, "user": f"c{client.index}", "text": f"{chance.of('text').random()}"}
            )
        else:
            client.stop()
    except LocalError:
        return
