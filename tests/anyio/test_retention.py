"""Retention from the configuration to members: the floor moves under a server, and who is behind is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from vixws_anyio import Config, Server
from vixws_anyio.cli.config import as_json
from vixws_anyio.config import ConfigError
from vixws_core.protocols import MessageStore
from vixws_core.retention import Retention
from vixws_store import MemoryMessageStore, SqliteMessageStore

from .rig import connected, frame, raw_peer, running

RULES = [{"pattern": "chat.*", "count": 10, "ageS": 604_800.0}, {"pattern": "*", "bytes": 5_000}]


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], MessageStore]:
    if request.param == "memory":
        return MemoryMessageStore
    return lambda: SqliteMessageStore(tmp_path / "a.db")


@pytest.mark.anyio
async def test_who_comes_back_from_below_is_told_and_positions_have_the_floor(
    make_store: Callable[[], MessageStore],
) -> None:
    store = make_store()
    server = Server(Config(port=0, retention=RULES), store=store)  # type: ignore[arg-type] # as a file has it
    async with running(server) as at, connected(at.ws) as peer:
        places = [await server.publish("chat.a", "note", {"n": number}) for number in range(100)]
        while (await store.position("chat.a")).floor < 90:
            await anyio.sleep(0.01)
        await peer.send({"type": "$position", "ref": "p", "room": "chat.a"})
        position = (await peer.receive_type("$position"))["payload"]
        since = {"ep": places[0].ep, "off": 1, "id": places[0].id}
        await peer.send(
            {"type": "$join", "ref": "j", "room": "chat.a", "payload": {"since": since, "on_fail": "floor"}}
        )
        joined = (await peer.receive_type("$joined"))["payload"]
        first = await peer.receive_type("note")

    assert (position["floor"], position["head"]) == (90, 100)
    assert (joined["recovered"], joined["reason"], joined["floor"], joined["from"]) == (False, "trimmed", 90, 90)
    assert first["off"] == 91


@pytest.mark.anyio
async def test_a_member_that_reads_too_slowly_is_told_of_each_gap(make_store: Callable[[], MessageStore]) -> None:
    store = make_store()
    config = Config(
        port=0,
        retention=RULES,  # type: ignore[arg-type] # as a file has it
        unsent_bytes_low=4_096,
        unsent_bytes_high=8_192,
        tail_bytes_room=0,
        send_buffer_bytes=4_096,
    )
    server = Server(config, store=store)
    async with running(server) as at, raw_peer(at.port, receive_buffer=4_096) as peer:
        await peer.stream.send(frame({"type": "$join", "ref": "j", "room": "chat.a"}))
        while (await peer.receive())["type"] != "$live":
            pass
        for number in range(400):
            await server.publish("chat.a", "note", {"n": number, "text": "x" * 1_000})
        while (await store.position("chat.a")).floor < 390:
            await anyio.sleep(0.01)
        cursor, gaps = 0, 0
        while cursor < 400:
            told = await peer.receive()
            if told["type"] == "$gap":
                assert told["payload"]["from"] == cursor + 1
                cursor, gaps = told["payload"]["to"], gaps + 1
            elif told["type"] == "note":
                assert told["off"] == cursor + 1
                cursor = told["off"]

    assert gaps >= 1


def test_rules_come_from_file_environment_and_flag(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"rooms": {"retention": RULES}}))
    text = json.dumps([{"pattern": "a", "count": 1}])
    expected = (Retention(pattern="chat.*", count=10, age_s=604_800.0), Retention(pattern="*", bytes=5_000))

    found = Config.load(file)
    assert found.retention == expected
    assert Config(retention=expected).retention == expected
    assert Config.load(file, {"VIXWS_RETENTION": text}).retention == (Retention(pattern="a", count=1),)
    assert Config.load(file, flags={"retention": text}).retention == (Retention(pattern="a", count=1),)
    assert Config.load(file, {"VIXWS_RETENTION": ""}).retention == ()
    assert json.loads(as_json(found))["rooms"]["retention"]["value"] == RULES


@pytest.mark.parametrize(
    "rules",
    [
        5,
        "chat.*",
        {"pattern": "a", "count": 1},
        ["a"],
        [{"count": 1}],
        [{"pattern": "a"}],
        [{"pattern": "", "count": 1}],
        [{"pattern": 5, "count": 1}],
        [{"pattern": "a\n", "count": 1}],
        [{"pattern": "a" * 129, "count": 1}],
        [{"pattern": "a", "count": 0}],
        [{"pattern": "a", "count": None}],
        [{"pattern": "a", "count": True}],
        [{"pattern": "a", "count": "1"}],
        [{"pattern": "a", "ageS": 1, "age_s": 1}],
        [{"pattern": "a", "count": 1, "rows": 1}],
        [{"pattern": "a", "ageS": 1e300}],
        [{"pattern": "a", "count": 1}] * 101,
    ],
)
def test_what_is_no_rule_is_refused_with_its_place(rules: Any, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"rooms": {"retention": rules}}))
    with pytest.raises(ConfigError) as of_file:
        Config.load(file)
    with pytest.raises(ConfigError) as of_flag:
        Config.load(flags={"retention": json.dumps(rules)})

    assert str(of_file.value).startswith(f"{file}: rooms.retention: expected a list of at most 100 objects such as ")
    assert str(of_flag.value).startswith("--retention: expected a list of at most 100 objects such as ")


@pytest.mark.parametrize("text", ["[", "nope", "[" * 100_000, '[{"pattern": "a", "ageS": NaN}]'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--retention: expected a list"):
        Config.load(flags={"retention": text})


@pytest.mark.anyio
async def test_a_store_that_cannot_trim_by_rules_is_refused() -> None:
    class Plain:
        durable = "memory"

    for store, got in ((None, "none"), (Plain(), "a Plain")):
        server = Server(Config(port=0, retention=RULES), store=store)  # type: ignore[arg-type] # as somebody may
        with pytest.raises(ConfigError, match=f"rooms.retention: expected a store that trims by itself, got {got}"):
            await server.serve()
