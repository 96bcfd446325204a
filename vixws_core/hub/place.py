"""A member's place in a room, for whoever looks at a hub without changing it."""

from __future__ import annotations

from typing import NamedTuple

from .model import Member

__all__ = ["Place", "place_of"]


class Place(NamedTuple):
    """How a member stands in its room."""

    position: int
    """The offset up to which everything was sent to it, or told to be missing."""
    live: bool
    """It gets what is new as soon as it is stored."""
    asking: bool
    """Its position is not known yet: the log was asked."""
    held: bool
    """Whether it may stay is being asked."""
    parked: bool
    """Its connection holds more unsent bytes than it may."""
    reading: bool
    """A page of the log is on its way for its connection."""
    resting: bool
    """The room's log could not be read, and is left alone for a while."""
    told: bool
    """Its client hears of joins, gaps and resets."""
    stored: bool
    """Whether the room's messages are stored: else there are no offsets."""
    ep: str
    head: int
    """The offset up to which the hub knows the room's log."""
    floor: int
    """The highest trimmed offset as far as is known; -1: not asked."""


def place_of(member: Member, now: float) -> Place:
    """The place of a member."""
    room = member.room
    return Place(
        position=room.pos if member.live else member.cursor,
        live=member.live,
        asking=member.asking,
        held=member.held,
        parked=member.connection.parked,
        reading=member.session.page_pending,
        resting=now < room.rests_until,
        told=member.told,
        stored=room.stored,
        ep=room.ep,
        head=room.pos,
        floor=room.floor,
    )
