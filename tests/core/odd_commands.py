"""Commands that an application gives at odd times, with odd values, for connections in every state and for none.

`python -m tests.core.odd_commands BASE COUNT [FIRST]` plays sequences of them; status 1 where one failed. A hub may
raise `LocalError` or `Refused` and nothing else, and what raised has changed nothing: a twin that never got it goes on
with the very same effects, and a good client is answered as in a fresh hub.
"""

from __future__ import annotations

import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from vixws_core import Hub, HubConfig, LocalError
from vixws_core.config import Policy
from vixws_core.effects import (
    Authenticate,
    Authorize,
    Broadcast,
    CloseTransport,
    Effect,
    MessageReceived,
    Opened,
    SendBytes,
)
from vixws_core.errors import Refused
from vixws_core.inputs import (
    Accept,
    Authenticated,
    Authorized,
    BytesFlushed,
    BytesReceived,
    Close,
    Connected,
    Disconnected,
    HandlerFinished,
    Input,
    Join,
    Leave,
    LeaveAll,
    ListHistory,
    Publish,
    Refuse,
    Respond,
    Revoke,
    Send,
    SendToAll,
    Since,
    StoreAppended,
    StoreFailed,
    TimePassed,
)
from vixws_core.log import STORE_ASKS, PureLog, run_asks

from .harness import EPOCH, REQUEST, TS, close_frame, text_frame

__all__ = ["COMMANDS", "Twins", "main", "play"]

GOOD = 1
"""The connection of the good client, which no odd command names."""

CONFIG = HubConfig(rooms_max=2, unstored_rooms=("tmp.*",), idle_timeout_s=0, ping_interval_s=0)
POLICIES = (Policy(), Policy(authenticated=True, authorized=True), Policy(authorized=True))

ROOMS = ("a", "a", "b", "c", "tmp.x", "", " ", "\n", "@x", "@user/ada", "x" * 129, "\ud800")
TEXTS = ("", "x", "chat", "$x", "x" * 200, "\x00", "\ud800", "é")
BODIES = (b"", b"{}", b"not json", b"\xff\xfe", b'{"type":"x"}', b"x" * 70_000)
HEADERS = ((), (("x", "y"),), (("x\n", "y"),), (("x", "y\r\nz: 1"),), (("connection", "close"),), (("", ""),))
NUMBERS = (-1, 0, 1, 3, 1 << 53, 1 << 70)
CODES = (0, 999, 1000, 1005, 1006, 3000, 4999, 5000, -1)

GOOD_MESSAGES = b"".join(
    map(
        text_frame,
        (
            {"type": "$join", "ref": "j", "room": "good", "payload": {"last": 5}},
            {"type": "chat", "ref": "p", "room": "good", "mid": "m", "payload": {"n": 1}},
            {"type": "$history", "ref": "h", "room": "good"},
            {"type": "$leave", "ref": "l", "room": "good"},
        ),
    )
)


def _since(stream: Random) -> Since | None:
    chance = stream.random()
    if chance < 0.6:
        return None
    return Since(stream.choice((EPOCH, "")), stream.choice(NUMBERS), stream.choice((None, "", "x")))


COMMANDS: tuple[Callable[[Random, int], Input], ...] = (
    lambda s, conn: Accept(conn, typed=s.random() < 0.5, user=s.choice((None, None, "ada", "", "\ud800"))),
    lambda s, conn: Accept(conn, s.choice((None, "x", "\n")), headers=s.choice(HEADERS)),
    lambda s, conn: Accept(conn, user="ada", expires_in_s=s.choice((None, 0.0, -1.0, 5.0)), limited=s.random() < 0.5),
    lambda s, conn: Respond(conn, s.choice((200, 204, 404, 101, 99, 1000, 0, -5)), s.choice(HEADERS), s.choice(BODIES)),
    lambda s, conn: Join(conn, s.choice(ROOMS), _since(s), s.choice((0, 0, *NUMBERS)), s.random() < 0.5),
    lambda s, conn: Join(conn, s.choice(ROOMS[:5])),
    lambda s, conn: Leave(conn, s.choice(ROOMS)),
    lambda s, conn: LeaveAll(conn),
    lambda s, conn: Send(conn, s.choice(BODIES), s.random() < 0.3, s.random() < 0.3),
    lambda s, conn: SendToAll(s.choice(BODIES[:5]), s.random() < 0.3, s.choice((None, conn))),
    lambda s, conn: Publish(
        s.choice(ROOMS),
        s.choice(TEXTS),
        s.choice(BODIES[:5]),
        s.choice(("event", "", "\ud800")),
        s.choice((None, *TEXTS)),
        s.random() < 0.8,
        s.choice((None, *NUMBERS)),
        s.choice((None, conn)),
        s.choice((None, *TEXTS)),
        s.choice((None, b"{}")),
    ),
    lambda s, conn: Publish(s.choice(ROOMS[:5]), "chat", b"{}", conn=s.choice((None, conn)), ref="r"),
    lambda s, conn: ListHistory(s.choice(NUMBERS), s.choice(ROOMS), s.choice(NUMBERS), s.choice((None, *TEXTS)), conn),
    lambda s, conn: Refuse(conn, s.choice(("denied", *TEXTS)), s.choice(TEXTS), s.choice((None, *TEXTS))),
    lambda s, conn: Revoke(s.choice(("ada", "", "\ud800")), s.choice((None, *ROOMS)), s.random() < 0.3),
    lambda s, conn: Close(conn, s.choice(CODES), s.choice(TEXTS)),
    lambda s, conn: HandlerFinished(conn, s.choice(TEXTS), failed=s.random() < 0.3),
    lambda s, conn: HandlerFinished(conn),
    lambda s, conn: Authenticated(s.choice(NUMBERS), s.choice((None, "ada", "")), s.choice((None, 0.0))),
    lambda s, conn: Authorized(s.choice(NUMBERS), s.choice(((), ("join",), ("x",)))),
    lambda s, conn: StoreAppended(s.choice(NUMBERS), EPOCH, 1, "x"),
    lambda s, conn: StoreFailed(s.choice(NUMBERS), "internal"),
)
"""What an application may come to ask, or to tell, by mistake."""


class Twins:
    """Two hubs that get the same inputs, but for those that raised in the first."""

    def __init__(self, policy: Policy) -> None:
        self.hub = Hub(CONFIG, policy=policy)
        self.twin = Hub(CONFIG, policy=policy)
        self.log = PureLog(EPOCH)
        self.now = 1000.0
        self.last = GOOD
        """The newest connection."""
        self.raised = 0
        self.out = b""
        """What the good client was sent."""
        self._todo: deque[Input | Effect] = deque()
        self.command(Connected(GOOD))
        self.command(BytesReceived(GOOD, REQUEST))
        self.command(Accept(GOOD, user="eve"))
        self.work(1 << 30)

    def command(self, input: Input) -> bool:
        """Gives one input to both; False where it raised, and so was given to one alone. Raises: `AssertionError`."""
        try:
            effects = self.hub.handle(input, self.now)
        except (LocalError, Refused):
            self.raised += 1
            return False
        same = self.twin.handle(input, self.now)
        assert effects == same, (
            f"after what raised, {input!r:.200} led to {effects!r:.300}, in the twin to {same!r:.300}"
        )
        for effect in effects:
            kind = type(effect)
            if isinstance(effect, SendBytes):
                self._sent(effect.conn, effect.data)
            elif isinstance(effect, Broadcast):
                for conn in effect.conns:
                    self._sent(conn, effect.data)
            elif isinstance(effect, CloseTransport):
                self._todo.append(Disconnected(effect.conn))
            elif isinstance(effect, Opened | MessageReceived):
                self._todo.append(HandlerFinished(effect.conn))
            elif kind in STORE_ASKS or isinstance(effect, Authenticate | Authorize):
                self._todo.append(effect)
        return True

    def _sent(self, conn: int, data: bytes) -> None:
        if conn == GOOD:
            self.out += data
        self._todo.append(BytesFlushed(((conn, len(data)),)))

    def work(self, most: int) -> None:
        """The world does what is to be done, or the first part of it."""
        while self._todo and most > 0:
            most -= 1
            todo = self._todo.popleft()
            if isinstance(todo, Authenticate):
                self.command(Authenticated(todo.request, "ada"))
            elif isinstance(todo, Authorize):
                self.command(Authorized(todo.request, ("join", "read", "publish")))
            elif type(todo) in STORE_ASKS:
                for told in run_asks(self.log, (todo,), TS):  # type: ignore[arg-type]  # `type` says what it is.
                    self.command(told)
            else:
                self.command(todo)  # type: ignore[arg-type]  # Nothing else is kept.
        while (due := self.hub.next_deadline()) is not None and due <= self.now:
            self.command(TimePassed())

    def act(self, stream: Random) -> None:
        """The world or a peer does something: connects, asks, closes, is gone, is slow; or time passes."""
        conn = self.last - stream.randrange(min(4, self.last - GOOD)) if self.last > GOOD else 0
        chance = stream.randrange(8)
        if chance < 2:
            self.last += 1
            self.command(Connected(self.last))
            if stream.random() < 0.9:
                self.command(BytesReceived(self.last, REQUEST if stream.random() < 0.8 else REQUEST[:40]))
        elif chance == 2:
            self.command(BytesReceived(conn, text_frame({"type": "$join", "room": "a", "ref": "j"})))
        elif chance == 3:
            hello = text_frame({"type": "$hello", "payload": {"v": [1], "token": "ada"}})
            self.command(BytesReceived(conn, hello + text_frame({"type": "app"})))
        elif chance == 4:
            self.command(BytesReceived(conn, close_frame() if stream.random() < 0.5 else b"\xff\xff"))
        elif chance == 5:
            self.command(Disconnected(conn))
        elif chance == 6:
            self.now += stream.choice((0.1, 6.0, 12.0))
            self.command(TimePassed())
        else:
            self.work(stream.choice((1, 3, 1 << 30)))

    def good(self) -> bytes:
        """A good client joins, publishes, reads and leaves, in a log of its own; returns what it is sent."""
        self.work(1 << 30)
        kept, self.log, self.out = self.log, PureLog(EPOCH), b""
        self.command(BytesReceived(GOOD, GOOD_MESSAGES))
        self.work(1 << 30)
        self.log = kept
        return self.out


def play(twins: Twins, seed: str, expected: bytes) -> list[Input]:
    """Plays one sequence; returns its commands. Raises what the hub raised, and `AssertionError`."""
    stream = Random(seed)
    given: list[Input] = []
    try:
        raised = twins.raised
        for _ in range(stream.randint(1, 12)):
            if stream.random() < 0.4:
                twins.act(stream)
            conn = twins.last - stream.randrange(4)
            if conn <= GOOD or stream.random() < 0.1:
                conn = stream.choice((0, -1, 1 << 40, 1 << 70))
            given.append(stream.choice(COMMANDS)(stream, conn))
            twins.command(given[-1])
        if twins.raised != raised:
            found = twins.good()
            assert found == expected, f"a good client got {found!r:.1000}, in a fresh hub {expected!r:.1000}"
    except Exception as exc:
        exc.add_note(f"after {given!r:.2000}")
        raise
    return given


def main(arguments: Sequence[str]) -> int:
    """Plays the sequences; returns the exit status."""
    if not 2 <= len(arguments) <= 3 or not all(word.isdigit() for word in arguments[1:]):
        print("usage: python -m tests.core.odd_commands BASE COUNT [FIRST]", file=sys.stderr)
        return 2
    base, count, first = arguments[0], int(arguments[1]), int((*arguments, "0")[2])
    failures = commands = raised = 0
    expected = [Twins(policy).good() for policy in POLICIES]
    twins: list[Twins] = []
    for number in range(first, first + count):
        if number % 60 == 0 or not twins:  # A hub serves so many sequences.
            raised += sum(one.raised for one in twins)
            twins = [Twins(policy) for policy in POLICIES]
        which = number % len(POLICIES)
        try:
            commands += len(play(twins[which], f"{base}/{number}", expected[which]))
        except Exception as exc:
            twins = []
            failures += 1
            if failures <= 20:
                print(f"sequence {base}/{number}:")
                traceback.print_exception(exc, limit=-1, file=sys.stdout)
    raised += sum(one.raised for one in twins)
    print(f"{count} sequences of {commands} commands, {raised} refused, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
