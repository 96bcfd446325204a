"""What a configuration says about how much of rooms is kept, told to the store that has to do it."""

from __future__ import annotations

from vixws_core.protocols import MessageStore, Retained

from ..config.config import Config, ConfigError

__all__ = ["retain"]


def retain(config: Config, store: MessageStore | None) -> None:
    """Tells the store its rules, where the configuration has some; else the store keeps those it came with.

    Raises: `ConfigError` where there is no store that trims by itself.
    """
    if not config.retention:
        return
    if not isinstance(store, Retained):
        got = "none" if store is None else f"a {type(store).__name__}"
        raise ConfigError(f"{config.place('retention')}: expected a store that trims by itself, got {got}")
    store.retain(config.retention)
