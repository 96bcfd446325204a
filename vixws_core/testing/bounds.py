"""The most bytes that a hub may hold for one connection, or send it at once."""

from __future__ import annotations

from ..config import HubConfig

__all__ = ["group_bytes_max", "held_bytes_max"]

_HEAD_BYTES = 1_024
"""What a message's head adds to its payload at most: names of 128 bytes, keys of 128 characters, JSON around them."""

_FRAME_BYTES = 14
"""The longest header of a frame (RFC 6455 §5.2)."""


def group_bytes_max(config: HubConfig) -> int:
    """The most bytes of room messages that go to one connection at once.

    A group of one commit ends with the frame that passes 65,536 bytes; a page holds `page_bytes_max` payload
    bytes (or one message), and a head for each of its rows.
    """
    frame = config.message_bytes_max + _HEAD_BYTES
    return max(65_536 + frame, max(config.page_bytes_max, frame) + config.page_rows_max * _HEAD_BYTES)


def held_bytes_max(config: HubConfig) -> int:
    """The most unsent bytes that a hub holds for one connection (PROTOCOL §5 and §13.8).

    The high mark, and one group of room messages that may pass it. Above the mark only answers follow: to what
    waits for the store (`publishes_max` in all, of which a page counts as a sixteenth), for the application,
    or in the step at hand. A page is at most one message of PROTOCOL §1, any other answer 2 KiB.
    """
    page = config.message_bytes_max + 4_096 + _FRAME_BYTES
    pages = config.publishes_max // max(1, config.publishes_max // 16)
    pages += config.pending_messages_max + 2 * config.events_per_step_max
    return config.unsent_bytes_high + group_bytes_max(config) + pages * page + config.publishes_max * 2_048
