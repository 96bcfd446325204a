"""How many functions of the core are called on the three paths that carry the load; times are noisy, counts are not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import vixws_core
from vixws_core import HubConfig
from vixws_core.app import Router, Session
from vixws_core.inputs import Publish

from .app_rig import AppRig
from .harness import Harness

CORE = str(Path(vixws_core.__file__).parent)

ECHOES_OF_64 = 1_436
"""64 messages in one read, each answered by a plain handler."""
PUBLISH_TO_3 = 77
"""A stored publish of a client to a room of three, with its acknowledgement."""
PAGE_OF_50 = 225
"""A join that reads 50 messages from the store; eleven calls of it, once a page, look whether the log is the same."""


def calls(act: Callable[[], object]) -> int:
    """Calls of functions of the core while `act` runs."""
    count = 0

    def see(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        if event == "call" and frame.f_code.co_filename.startswith(CORE):
            count += 1

    sys.setprofile(see)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def test_an_echo_takes_few_calls() -> None:
    router = Router()

    @router.on_message
    def echo(session: Session, message: str | bytes) -> None:
        session.send_text(str(message))

    rig = AppRig(router)
    peer = rig.connect()
    peer.send("warm")
    found = calls(lambda: peer.send(*("x" * 125 for _ in range(64))))

    assert len(peer.texts()) == 65
    assert found <= ECHOES_OF_64


def test_a_publish_to_three_members_takes_few_calls() -> None:
    harness = Harness()
    clients = [harness.client("africa") for _ in range(3)]
    clients[0].publish("africa", ref="warm")
    found = calls(lambda: clients[0].publish("africa", ref="1"))

    assert [client.types().count("chat") for client in clients] == [2, 2, 2]
    assert found <= PUBLISH_TO_3


def test_a_page_takes_few_calls() -> None:
    harness = Harness(HubConfig(tail_bytes_room=1))
    for _ in range(50):
        harness.put(Publish("africa", "chat", b'{"text":"Hi"}'))
    peer = harness.client()
    found = calls(lambda: peer.send({"type": "$join", "ref": "j", "room": "africa", "payload": {"last": 50}}))

    assert peer.types().count("chat") == 50
    assert found <= PAGE_OF_50
