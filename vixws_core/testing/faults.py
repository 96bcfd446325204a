"""What goes wrong in a world, what its clients do by themselves, and small limits that are reached soon."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import HubConfig

__all__ = ["LOG_GOES_BACK", "NO_FAULTS", "Faults", "Habits", "roomy_config", "tight_config"]

LOG_GOES_BACK = True
"""Whether varied worlds let a log go back under a running server, as a failover does that loses the newest commits."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong, and how often. Chances are per step and connection (or per step and store call)."""

    cut: float = 0.004
    """A connection breaks: what is under way is lost from some byte on, each side hears of it later."""
    half_open: float = 0.001
    """Nothing passes on a connection any more, and neither side is told."""
    refuse: float = 0.1
    """An attempt to connect fails."""
    chunk: float = 0.5
    """A delivery is cut at any byte; else all that is there comes at once."""
    slow: float = 0.3
    """The share of clients that are slow readers."""
    slow_bytes: int = 200
    """The most bytes that a slow reader takes at once."""
    kernel_bytes: int = 2_048
    """Bytes between server and client that count as flushed; the rest waits in the server's outbox."""
    store_pace: float = 0.4
    """The chance per step that the store runs a commit, runs a read, tells of a commit, tells of a read."""
    store_fail: float = 0.03
    """A store call fails, and nothing was done."""
    store_down: float = 0.004
    """The store fails every call for a while."""
    store_lie: float = 0.02
    """A commit is reported failed though it was made; the room hears of it with a later commit."""
    trim: float = 0.01
    """A room's log is trimmed up to some offset."""
    crash: float = 0.002
    """The server dies; what the store was asked may or may not have been done."""
    drain: float = 0.001
    """The server shuts down in order, and another one follows."""
    restore: float = 0.2
    """The share of server ends after which the log is an older backup."""
    new_epoch: float = 0.0
    """The share of such backups that are a log of another epoch."""
    log_back: float = 0.0
    """The log becomes the last backup while the server runs on it, and is told of nothing; see `LOG_GOES_BACK`."""
    log_other: float = 0.0
    """The same with a log of another epoch."""
    repeat: float = 0.0
    """Per stored message of a client: it comes twice, as a server that is not ours may send it."""
    skip: float = 0.0
    """One is left out in front of the next, without a word."""
    stale: float = 0.0
    """One of another epoch comes behind it."""
    leap: float = 0.01
    """Per step: up to three seconds pass at once."""


NO_FAULTS = Faults(
    cut=0,
    half_open=0,
    refuse=0,
    chunk=0,
    slow=0,
    kernel_bytes=1 << 30,
    store_fail=0,
    store_down=0,
    store_lie=0,
    trim=0,
    crash=0,
    drain=0,
    restore=0,
)
"""A world in which only the order of things is left to chance."""


@dataclass(frozen=True, slots=True)
class Habits:
    """What clients do by themselves, as chances per step and client; nothing unless a world is given habits."""

    rooms: tuple[str, ...] = ("africa", "asia", "europe")
    """The rooms they are in."""
    act: float = 0.15
    """A client does something at all."""
    payload_bytes: int = 200
    """The usual size of a payload; one in eight is up to twenty times as large, but no larger than `payload_max`."""
    payload_max: int = 6_000
    """The largest payload."""
    types: tuple[str, ...] = ("note",)
    """What they publish."""
    sends: tuple[str, ...] = ()
    """What they send to the application, besides the chat's messages."""
    direct: float = 0.01
    """Per step: somebody appends to the store without the server."""


def tight_config() -> HubConfig:
    """Limits of a few KiB and a few messages: pages of one row, and everybody is parked now and then."""
    return HubConfig(
        message_bytes_max=8_192,
        unsent_bytes_low=2_048,
        unsent_bytes_high=6_144,
        tail_bytes_room=1_500,
        tail_bytes_total=3_000,
        page_rows_max=3,
        page_bytes_max=1_500,
        publishes_max=6,
        pending_messages_max=4,
        events_per_step_max=4,
        rooms_max=3,
        ping_interval_s=5.0,
        pong_timeout_s=4.0,
        flush_stall_s=10.0,
        store_retry_s=0.2,
        unstored_rooms=("tmp.*",),
    )


def roomy_config() -> HubConfig:
    """Limits of tens of KiB: pages of several rows, groups of several frames."""
    return HubConfig(
        message_bytes_max=8_192,
        unsent_bytes_low=24_576,
        unsent_bytes_high=32_768,
        tail_bytes_room=4_096,
        tail_bytes_total=8_192,
        page_rows_max=5,
        page_bytes_max=20_000,
        rooms_max=8,
        ping_interval_s=5.0,
        pong_timeout_s=4.0,
        flush_stall_s=10.0,
        store_retry_s=0.2,
        unstored_rooms=("tmp.*",),
    )
