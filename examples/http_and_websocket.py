"""HTTP and WebSocket on one port: a vote whose page, figures and live updates come from the same server.

`python examples/http_and_websocket.py`, then open http://127.0.0.1:9090/ in two windows, and
http://127.0.0.1:9090/votes.json beside them.
"""

from collections import Counter
from typing import Literal
from urllib.parse import parse_qs

import msgspec

from vixws_anyio import Page, PageRequest, Server, Session

server = Server()
votes: Counter[str] = Counter(tea=0, coffee=0)

HTML = """<!doctype html><meta charset=utf-8><title>Tea or coffee</title>
<button>tea</button> <button>coffee</button> <pre></pre>
<script>
const socket = new WebSocket(location.origin.replace(/^http/, "ws"))
socket.onmessage = event => document.querySelector("pre").textContent = JSON.stringify(JSON.parse(event.data).payload)
for (const button of document.querySelectorAll("button"))
  button.onclick = () => socket.send(JSON.stringify({type: "vote", payload: {choice: button.textContent}}))
</script>"""


class Vote(msgspec.Struct):
    """One vote."""

    choice: Literal["tea", "coffee"]


@server.page("/")
def page(request: PageRequest) -> str:
    """The application's own page, in place of the chat page."""
    return HTML


@server.page("/votes.json")
def figures(request: PageRequest) -> Page | dict[str, int]:
    """All figures, or with `?choice=tea` those of one, or 404."""
    choice = parse_qs(request.query).get("choice", [""])[0]
    if choice and choice not in votes:
        return Page(b"no such choice\n", "text/plain", status=404)
    return {choice: votes[choice]} if choice else dict(votes)


@server.on_open
def show(session: Session) -> None:
    """A new page sees how it stands."""
    session.send_json("votes", dict(votes))


@server.on("vote")
def vote(session: Session, payload: Vote) -> None:
    """Counts, and tells everybody."""
    votes[payload.choice] += 1
    server.broadcast_json("votes", dict(votes))


if __name__ == "__main__":
    server.listen_blocking()
