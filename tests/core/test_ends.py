"""The end of a connection: what came before is answered first, and its handlers learn of it at once."""

from __future__ import annotations

from typing import Any

import pytest

from vixws_core import HubConfig, LocalError
from vixws_core.app.router import Router
from vixws_core.app.session import Session
from vixws_core.effects import Closing
from vixws_core.inputs import Shutdown
from vixws_core.wire.frames import CloseReceived

from .app_rig import AppRig, typed
from .harness import Harness, Peer, close_frame, text_frame

ASKS: list[dict[str, Any]] = [
    {"type": "chat", "ref": "1", "room": "africa", "payload": {"n": 1}},
    {"type": "chat", "ref": "1", "mid": "m", "room": "asia"},
    {"type": "$history", "ref": "1", "room": "africa"},
    {"type": "$position", "ref": "1", "room": "africa"},
    {"type": "$join", "ref": "1", "room": "africa"},
    {"type": "$join", "ref": "1", "room": "africa", "payload": {"last": 3}},
    {"type": "$nothing", "ref": "1"},
]
ENDS = {"a close": (close_frame(1000), 1000), "a broken frame": (b"\xf3\x00", 1002)}


def heard(peer: Peer) -> tuple[list[str], int | None]:
    """The refs answered, and the code of the close frame behind them; nothing else may follow that one."""
    refs: list[str] = []
    code: int | None = None
    for frame in peer.frames():
        assert code is None, "nothing follows a close frame"
        if isinstance(frame, CloseReceived):
            code = frame.code
        elif isinstance(frame, str) and '"ref":"1"' in frame:
            refs.append("1")
    return refs, code


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: f"{ask['type']} {len(str(ask))}")
@pytest.mark.parametrize("held", [False, True], ids=["quick store", "slow store"])
def test_what_came_before_the_end_is_answered_first_however_it_is_cut(
    ask: dict[str, Any], end: str, held: bool
) -> None:
    tail, code = ENDS[end]
    stream = text_frame(ask) + tail
    told: set[tuple[tuple[str, ...], int | None]] = set()
    for cut in (0, 1, len(stream) // 2, len(stream) - len(tail), len(stream) - 1):
        harness = Harness()
        harness.client().publish("africa", "before")
        peer = harness.client()
        harness.store_held = held
        for part in (stream[:cut], stream[cut:]):
            if part:
                peer.raw(part)
        harness.deliver_all()
        refs, found = heard(peer)
        told.add((tuple(refs), found))

    assert told == {(("1",), code)}


def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_a_close_may_take() -> None:
    harness = Harness(HubConfig(close_timeout_s=5.0))
    peer = harness.client()
    harness.store_held = True
    peer.raw(text_frame(ASKS[0]) + close_frame(1000))
    assert peer.close_seen() is None

    harness.run_until(harness.now + 5.1)

    assert peer.close_seen() == (1000, "")


def test_a_drain_waits_for_a_join_that_is_asked() -> None:
    harness = Harness()
    peer = harness.client()
    harness.store_held = True
    peer.send(ASKS[4])
    harness.put(Shutdown(8.0))
    assert "$drain" in peer.types() and peer.close_seen() is None

    harness.deliver_all()

    refs, code = heard(peer)
    assert (refs, code) == (["1"], 4200)


# ---- whoever handles its messages ---------------------------------------------------------------------


def waiting_router() -> tuple[Router, list[Session], list[object]]:
    router, sessions, seen = Router(), list[Session](), list[object]()

    @router.on("slow")
    async def slow(session: Session, payload: dict[str, Any]) -> None:
        sessions.append(session)

    @router.on("quick")
    def quick(session: Session, payload: dict[str, Any]) -> dict[str, Any]:
        seen.append(session.is_open)
        return {"open": session.is_open}

    return router, sessions, seen


@pytest.mark.parametrize("end", ["peer", "framing", "lost", "drain", "own"])
def test_a_session_is_not_open_any_more_as_soon_as_either_side_begins_to_close(end: str) -> None:
    router, _, _ = waiting_router()
    rig = AppRig(router)
    peer = rig.connect()
    peer.send(typed("slow", ref="1"))
    (session,) = rig.app.sessions()
    assert session.is_open and len(rig.waiting) == 1

    if end == "peer":
        peer.close()
    elif end == "framing":
        peer.raw(b"\xf3\x00")
    elif end == "lost":
        peer.vanish()
    elif end == "drain":
        rig.pump.put(Shutdown(8.0))
    else:
        session.close()

    assert not session.is_open
    rig.run()
    if end in ("drain", "own"):
        peer.close()
    assert rig.app.sessions() == []


def test_messages_of_the_same_read_as_a_close_are_handled_and_answered() -> None:
    router, _, seen = waiting_router()
    rig = AppRig(router)
    peer = rig.connect()
    peer.messages()

    peer.raw(b"".join(text_frame(typed("quick", ref=str(n))) for n in range(3)) + close_frame(1000))

    assert len(seen) == 3
    assert [message["ref"] for message in peer.messages()] == ["0", "1", "2"]
    assert peer.close_seen == (1000, "")


def test_messages_behind_a_close_of_our_own_are_not_handled() -> None:
    router, _, seen = waiting_router()
    router.on("end")(lambda session, payload: session.close())
    rig = AppRig(router)
    peer = rig.connect()

    peer.send(typed("quick"), typed("end"), typed("quick"))

    assert seen == [True]


def test_the_end_is_told_behind_the_messages_that_came_before_it() -> None:
    harness = Harness()
    harness.finishing = True
    peer = harness.client()
    peer.raw(text_frame({"type": "a"}) + close_frame(1000))
    kinds = [type(e).__name__ for _, _, effects in harness.steps for e in effects if type(e).__name__ in KINDS]

    assert kinds[-3:] == ["MessageReceived", "Closing", "Closed"]
    assert len(harness.effects(Closing)) == 1


KINDS = ("MessageReceived", "Closing", "Closed")


def test_without_a_loop_nothing_can_wait_for_the_end() -> None:
    router, _, _ = waiting_router()
    rig = AppRig(router)
    rig.connect()
    (session,) = rig.app.sessions()

    with pytest.raises(LocalError, match="make_signal"):
        session.wait_closed()
