"""The support chat: tickets are for their customer and the agents, through restarts, and for nobody else by any way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.examples.test_examples import EXAMPLES, example, free_port
from tests.serving import environment, serving

SECRET = "a secret of the tests, 32 bytes long or more"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPPORT_SECRET", SECRET)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with example("support_chat", tmp_path) as url:
        yield url


def token(name: str, role: str | None = "customer", seconds: float = 600) -> str:
    claims = {"sub": name, "role": role, "exp": int(time.time() + seconds)}
    return jwt.encode({key: value for key, value in claims.items() if value is not None}, SECRET, "HS256")


class Person:
    """A connection of somebody; what comes is read when it is asked for."""

    def __init__(self, client: ClientConnection) -> None:
        self.client = client

    def ask(self, type: str, room: str | None = None, **payload: Any) -> dict[str, Any]:
        """Sends a message and returns its answer; what comes before it is passed over."""
        message = {"type": type, "ref": "1", "room": room, "payload": payload}
        self.client.send(json.dumps({key: value for key, value in message.items() if value is not None}))
        while (found := self.hear()).get("ref") != "1":
            pass
        return found

    def hear(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.client.recv(timeout=10))
        return found

    def hear_type(self, type: str) -> dict[str, Any]:
        while (found := self.hear())["type"] != type:
            pass
        return found

    def hear_from(self, name: str) -> dict[str, Any]:
        """The next message that this user wrote; its own copies may come before or behind their answers."""
        while (found := self.hear()).get("from") != name:
            pass
        return found

    def silent(self) -> bool:
        """Whether nothing came but the answer to a question of its own."""
        self.client.send(json.dumps({"type": "$ping", "ref": "p"}))
        return str(self.hear()["type"]) == "$pong"


@contextmanager
def person(url: str, name: str, role: str | None = "customer") -> Iterator[Person]:
    """Somebody who is logged in."""
    with connect(url, additional_headers={"Authorization": f"Bearer {token(name, role)}"}) as client:
        yield Person(client)


def open_ticket(who: Person, subject: str = "It leaks", key: str = "k") -> str:
    """The room of a new ticket."""
    answer = who.ask("ticket.open", key=key, subject=subject)
    assert answer["type"] == "$ack", answer
    return f"ticket/{answer['payload']['ticket']}"


def code(answer: dict[str, Any]) -> str:
    return str(answer["payload"].get("code", answer["type"]))


def test_support_chat_lets_a_customer_and_an_agent_talk(url: str) -> None:
    with person(url, "ada") as ada, person(url, "tom", "agent") as tom:
        tom.ask("$join", "agents")
        room = open_ticket(ada)
        told = tom.hear_type("ticket.opened")
        for who in (ada, tom):
            assert who.ask("$join", room)["type"] == "$joined"
        ada.ask("message", room, text="Please help", role="agent", author="tom")
        heard = [tom.hear_from("ada")]
        tom.ask("message", room, text="I am here")
        heard.append(ada.hear_from("tom"))

    assert told["payload"] == {"ticket": 1, "customer": "ada", "subject": "It leaks"}
    assert [(message["from"], message["payload"]) for message in heard] == [
        ("ada", {"text": "Please help", "role": "customer"}),
        ("tom", {"text": "I am here", "role": "agent"}),
    ]


def test_support_chat_opens_a_ticket_once_however_often_it_is_asked(url: str) -> None:
    with person(url, "ada") as ada, person(url, "eve") as eve, person(url, "tom", "agent") as tom:
        rooms = [open_ticket(ada), open_ticket(ada, "another subject"), open_ticket(ada, key="2"), open_ticket(eve)]
        listed = tom.ask("$history", "agents")["payload"]["messages"]

    assert rooms == ["ticket/1", "ticket/1", "ticket/2", "ticket/3"]
    assert [message["payload"]["ticket"] for message in listed] == [3, 2, 1]


STRANGERS = [("eve", "customer"), ("eve", None), ("eve", "boss"), ("tom ", "customer"), ("agents", "customer")]


@pytest.mark.parametrize(("name", "role"), STRANGERS)
def test_support_chat_gives_a_stranger_nothing_by_any_way(url: str, name: str, role: str | None) -> None:
    with person(url, "ada") as ada, person(url, name, role) as eve:
        room = open_ticket(ada)
        ada.ask("$join", room)
        ada.ask("message", room, text="a secret")
        for place in (room, "agents", "@user/ada", "ticket/2", "ticket/01", "ticket/", "africa"):
            answers = [
                eve.ask("$join", place),
                eve.ask("$join", place, last=10),
                eve.ask("$join", place, since={"ep": "x", "off": 0}),
                eve.ask("$history", place),
                eve.ask("$position", place),
                eve.ask("message", place, text="Hi"),
                eve.ask("ticket.closed", place, ticket=1),
            ]
            assert {code(answer) for answer in answers} == {"denied"}, place
            assert not any("secret" in json.dumps(answer) for answer in answers)
        assert code(eve.ask("ticket.close", ticket=1)) == "denied"
        eve.client.send(f"join {room}")
        assert code(eve.hear()) == "bad_json"
        eve.client.send(json.dumps({"type": "message", "payload": {"room": room, "text": "Hi"}}))
        eve.client.send(room.encode())
        ada.ask("message", room, text="another secret")
        assert eve.silent()
        seen = ada.ask("$history", room)["payload"]["messages"]

    assert [message["payload"]["text"] for message in seen] == ["another secret", "a secret"]


@pytest.mark.parametrize("proof", ["none", "expired", "forged", "unsigned"])
def test_support_chat_lets_nobody_in_whose_token_is_no_good(url: str, proof: str) -> None:
    claims = {"sub": "ada", "role": "customer", "exp": int(time.time()) + 600}
    bad = {
        "none": "",
        "expired": token("ada", seconds=-1),
        "forged": jwt.encode(claims, "another secret, which is as long as it must be", "HS256"),
        "unsigned": jwt.encode(claims, "", "none"),
    }[proof]
    with person(url, "ada") as ada:
        room = open_ticket(ada)
        ada.ask("$join", room)
        if bad:
            with pytest.raises(InvalidStatus, match="401"):
                connect(url, additional_headers={"Authorization": f"Bearer {bad}"})
        with connect(url) as tab:  # A second tab, which shows the token that it kept with its first message.
            ada.ask("message", room, text="a secret")
            with pytest.raises(ConnectionClosed) as caught:
                tab.send(json.dumps({"type": "$hello", "payload": {"v": [1], "token": bad}}))
                tab.send(json.dumps({"type": "$join", "ref": "1", "room": room}))
                raise AssertionError(tab.recv(timeout=10))

    assert caught.value.rcvd is not None and caught.value.rcvd.code == 4001


def test_support_chat_ends_a_connection_with_its_token(url: str) -> None:
    with connect(url, additional_headers={"Authorization": f"Bearer {token('ada', seconds=2)}"}) as client:
        room = open_ticket(Person(client))
        Person(client).ask("$join", room)
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                client.recv(timeout=10)

    assert caught.value.rcvd is not None and caught.value.rcvd.code == 4101


def test_support_chat_lets_a_customer_read_a_closed_ticket_and_write_no_more(url: str) -> None:
    with person(url, "ada") as ada, person(url, "ada") as tab, person(url, "tom", "agent") as tom:
        room = open_ticket(ada)
        for who in (ada, tab):
            who.ask("$join", room)
            assert who.ask("message", room, text="Please help")["type"] == "$ack"
        ada.ask("$join", "@user/ada")
        assert code(ada.ask("ticket.close", ticket=1)) == "denied"
        assert tom.ask("ticket.close", ticket=1)["type"] == "$ack"
        told = {ada.hear_type("ticket.closed")["room"] for _ in range(2)}
        refused = [code(who.ask("message", room, text="One more")) for who in (ada, tab)]
        after = tom.ask("message", room, text="Thank you")["type"]
        heard = tab.hear_from("tom")["payload"]["text"]
        read = ada.ask("$history", room)["payload"]["messages"]

    assert told == {room, "@user/ada"}
    assert refused == ["denied", "denied"] and after == "$ack"
    assert heard == "Thank you"
    assert [message["type"] for message in read] == ["message", "ticket.closed", "message", "message"]


def test_support_chat_carries_an_agents_word_to_one_user(url: str) -> None:
    with person(url, "ada") as ada, person(url, "eve") as eve, person(url, "tom", "agent") as tom:
        ada.ask("$join", "@user/ada")
        assert code(eve.ask("$join", "@user/ada")) == code(tom.ask("$join", "@user/ada")) == "denied"
        assert tom.ask("message", "@user/ada", text="Your parcel is here")["type"] == "$ack"
        heard = ada.hear_type("message")
        assert code(ada.ask("message", "@user/ada", text="to myself")) == "denied"
        assert eve.silent()

    assert (heard["from"], heard["payload"]) == ("tom", {"text": "Your parcel is here", "role": "agent"})


def test_support_chat_keeps_tickets_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    with example("support_chat", tmp_path) as url, person(url, "ada") as ada, person(url, "tom", "agent") as tom:
        room, done = open_ticket(ada), open_ticket(ada, key="done")
        first = ada.ask("message", room, text="one")["payload"]
        tom.ask("ticket.close", ticket=2)
    with example("support_chat", tmp_path) as url, person(url, "tom", "agent") as tom:
        tom.ask("message", room, text="while you were away")
        with person(url, "ada") as ada, person(url, "eve") as eve:
            since = {name: first[name] for name in ("ep", "off", "id")}
            joined = ada.ask("$join", room, since=since)
            missed = ada.hear_type("message")
            assert ada.ask("message", room, text="I am back")["type"] == "$ack"
            assert code(eve.ask("$join", room, since=since)) == "denied"
            assert code(ada.ask("message", done, text="One more")) == "denied"
            texts = [message["payload"]["text"] for message in ada.ask("$history", room)["payload"]["messages"]]

    assert joined["payload"]["recovered"] is True
    assert missed["payload"]["text"] == "while you were away"
    assert texts == ["I am back", "while you were away", "one"]


def test_support_chat_works_as_its_docstring_says(tmp_path: Path) -> None:
    script = str(EXAMPLES / "support_chat.py")

    def token_of(name: str, role: str) -> str:
        command = [sys.executable, script, "token", name, role]
        run = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
        return run.stdout.strip()

    port = free_port()
    source = (EXAMPLES / "support_chat.py").read_text(encoding="utf-8").replace(":9090", f":{port}")
    talk = source[source.index("    async with Client(") : source.index("\nRooms:")]
    (tmp_path / "talk.py").write_text(
        f"import anyio, json, sys\nfrom vixws_anyio import Client\nada, tom = sys.argv[1:]\n"
        f"async def main():\n{talk}            break\nanyio.run(main)\n",
        encoding="utf-8",
    )
    with serving(tmp_path, "--app", "examples.support_chat:server", "--port", str(port)):
        tokens = [token_of("ada", "customer"), token_of("tom", "agent")]
        command = [sys.executable, "talk.py", *tokens]
        run = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)

    assert (run.stdout, run.stderr) == ("{'ticket': 1, 'customer': 'ada', 'subject': 'It leaks'}\n", "")


@pytest.mark.parametrize("given", [None, "", "short"])
def test_support_chat_has_no_secret_of_its_own(
    tmp_path: Path, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is None:
        monkeypatch.delenv("SUPPORT_SECRET")
    else:
        monkeypatch.setenv("SUPPORT_SECRET", given)
    command = [sys.executable, str(EXAMPLES / "support_chat.py"), "token", "ada", "customer"]
    run = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)

    assert run.returncode == 1 and run.stdout == ""
    assert "32 bytes" in run.stderr
