"""The layers of the core: which module may import which. `tests/test_layers.py` holds the code against this table, and
`docs/draw.py` draws it.

A module may import those listed, what they list, and the ground. Modules of one line stand above all lines before it
that they name; nothing stands beside itself.
"""

from __future__ import annotations

from typing import Final

__all__ = ["GROUND", "TABLE", "allowed"]

GROUND: Final = {
    "codes": "",
    "bucket": "",
    "errors": "codes",
    "config": "",
    "message": "codes errors",
    "names": "errors",
    "nesting": "",
    "mids": "",
    "entries": "errors mids names nesting",
    "inputs": "codes message",
    "effects": "message",
    "sizes": "bucket message",
    "retention": "errors names",
    "roomlog": "message",
    "producers": "codes effects inputs mids",
    "log": "codes effects errors inputs message producers roomlog sizes",
    "protocols": "effects inputs log message retention",
    "pump": "",
}
"""The ground: public, shared by all packages, and its own order."""

TABLE: Final = {
    "wire.encoding": "",
    "wire.received": "",
    "wire.gathering": "",
    "wire.shape": "wire.encoding",
    "wire.frames": "wire.encoding wire.gathering wire.received wire.shape",
    "wire.http": "",
    "wire.payloads": "",
    "wire.envelope": "wire.payloads",
    "wire.inflate": "wire.frames",
    "wire.codec": "wire.frames",
    "wire.deflate": "wire.codec wire.http",
    "hub.rooms.tail": "",
    "hub.identity": "",
    "hub.handshake": "wire.http",
    "hub.lookup": "",
    "hub.pause": "",
    "hub.model": "wire.codec wire.envelope hub.handshake hub.rooms.tail hub.identity hub.lookup hub.pause",
    "hub.step": "hub.model",
    "hub.place": "hub.model",
    "hub.asks": "hub.step",
    "hub.connection.timers": "hub.step",
    "hub.connection.reading": "hub.connection.timers",
    "hub.connection.outbox": "hub.connection.reading",
    "hub.rooms.unstored": "hub.connection.outbox",
    "hub.rooms.pages": "hub.connection.timers hub.asks",
    "hub.rooms.continuity": "hub.asks",
    "hub.rooms.telling": "hub.connection.outbox",
    "hub.rooms.cursors": "hub.rooms.unstored hub.rooms.pages hub.rooms.continuity hub.rooms.telling",
    "hub.rooms.members": "hub.rooms.cursors",
    "hub.sessions.rates": "hub.connection.reading",
    "hub.sessions.lifecycle": "hub.rooms.members hub.sessions.rates",
    "hub.sessions.grants": "hub.sessions.lifecycle",
    "hub.sessions.identity": "hub.sessions.grants",
    "hub.sessions.publishing": "hub.sessions.grants",
    "hub.sessions.history": "hub.sessions.grants",
    "hub.sessions.resume": "hub.sessions.lifecycle",
    "hub.sessions.requests": "hub.sessions.publishing hub.sessions.history hub.sessions.identity hub.sessions.resume",
    "hub.sessions.inbox": "hub.sessions.requests wire.inflate",
    "hub.arrivals": "hub.sessions.inbox wire.deflate",
    "hub.deadlines": "hub.sessions.inbox",
    "hub.hub": "hub.arrivals hub.deadlines hub.place",
    "app.commands": "",
    "app.router": "",
    "app.access": "app.router",
    "app.origins": "",
    "app.session": "app.commands app.access",
    "app.dispatch": "app.session",
    "app.gate": "app.dispatch",
    "app.app": "app.gate app.origins",
    "app.chat": "app.app wire.envelope",
    "client.chance": "",
    "client.config": "",
    "client.records": "",
    "client.handshake": "",
    "client.link": "client.chance client.records wire.codec",
    "client.cursor": "client.link",
    "client.rooms": "client.cursor client.config wire.envelope",
    "client.outbox": "client.link client.config wire.envelope",
    "client.channel": "client.rooms client.outbox",
    "client.machine": "client.channel client.handshake",
    "trace.lines": "",
    "trace.recording": "trace.lines",
    "trace.replaying": "hub.hub trace.lines",
    "trace.hearing": "wire.envelope wire.inflate",
    "trace.happenings": "trace.replaying trace.hearing",
    "trace.membership": "trace.happenings",
    "trace.explaining": "trace.membership",
    "trace.searching": "trace.lines",
    "trace.scene": "hub.hub",
    "trace.redacting": "trace.lines wire.envelope wire.inflate",
}
"""The layers above the ground, from below."""


def allowed(module: str) -> frozenset[str]:
    """All modules that `module` may import: what its line names, what those may import, and the ground."""
    if module in GROUND:
        return _closed(GROUND, module)
    return _closed(TABLE, module) | frozenset(GROUND)


def _closed(table: dict[str, str], module: str) -> frozenset[str]:
    found: set[str] = set()
    for name in table[module].split():
        found |= {name} | _closed(table, name)
    return frozenset(found)
