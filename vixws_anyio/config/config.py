"""The configuration of a server: defaults, beneath a JSON file, beneath the environment, beneath flags."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn

from vixws_core.config import HubConfig
from vixws_core.retention import Retention

from .kinds import split_address
from .layers import ConfigError, from_environment, from_file, from_flags, plain, refuse, show, suggest
from .settings import SETTINGS, Setting, Value, find

__all__ = ["Config", "ConfigError", "default", "plain", "show", "suggest"]

_HUB: Final = HubConfig()
_HUB_FIELDS: Final = tuple(field.name for field in dataclasses.fields(HubConfig) if field.name != "durable")


def _no_sources() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of one server; `docs/configuration.md` says what each one means, and its range.

    Names end in their unit; those that a hub obeys are named as in `HubConfig`. Raises `ConfigError` where a
    value does not fit.
    """

    host: str = "127.0.0.1"
    port: int = 9_090
    backend: str = "asyncio"
    uvloop: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    message_bytes_max: int = _HUB.message_bytes_max
    idle_timeout_s: float = _HUB.idle_timeout_s
    ping_interval_s: float = _HUB.ping_interval_s
    pong_timeout_s: float = _HUB.pong_timeout_s
    handshake_timeout_s: float = _HUB.handshake_timeout_s
    close_timeout_s: float = _HUB.close_timeout_s
    message_timeout_s: float = _HUB.message_timeout_s
    head_bytes_max: int = _HUB.head_bytes_max
    headers_max: int = _HUB.headers_max
    fragments_max: int = _HUB.fragments_max
    json_depth_max: int = _HUB.json_depth_max
    pending_messages_max: int = _HUB.pending_messages_max
    events_per_step_max: int = _HUB.events_per_step_max
    publishes_max: int = _HUB.publishes_max
    unsent_bytes_low: int = _HUB.unsent_bytes_low
    unsent_bytes_high: int = _HUB.unsent_bytes_high
    unsent_bytes_total: int = _HUB.unsent_bytes_total
    received_bytes_total: int = _HUB.received_bytes_total
    flush_stall_s: float = _HUB.flush_stall_s
    messages_per_s: float = _HUB.messages_per_s
    messages_burst: int = _HUB.messages_burst
    user_messages_per_s: float = _HUB.user_messages_per_s
    user_messages_burst: int = _HUB.user_messages_burst
    asks_per_s: float = _HUB.asks_per_s
    asks_burst: int = _HUB.asks_burst
    new_rooms_per_min: int = _HUB.new_rooms_per_min
    control_frames_per_s: float = _HUB.control_frames_per_s
    control_frames_burst: int = _HUB.control_frames_burst
    deflate: bool = _HUB.deflate
    inflated_bytes_per_s: int = _HUB.inflated_bytes_per_s
    send_buffer_bytes: int = 65_536
    connections_max: int = 10_000
    connections_per_ip: int = 64
    connections_opening_max: int = 256
    handshakes_per_ip_per_s: float = 20.0
    limit_loopback: bool = False
    trusted_proxies: tuple[str, ...] = ()
    handshakes_per_s: float = _HUB.handshakes_per_s
    reconnect_first_s: float = _HUB.reconnect_first_s
    drain_s: float = _HUB.drain_s
    handler_timeout_s: float = 0.0
    cancel_handlers: bool = False
    store: str = "sqlite:///chat_messages.db"
    store_retry_s: float = _HUB.store_retry_s
    metrics_listen: str = "127.0.0.1:9100"
    rooms_max: int = _HUB.rooms_max
    unstored_rooms: tuple[str, ...] = _HUB.unstored_rooms
    retention: tuple[Retention, ...] = ()
    page_rows_max: int = _HUB.page_rows_max
    page_bytes_max: int = _HUB.page_bytes_max
    tail_bytes_room: int = _HUB.tail_bytes_room
    tail_bytes_total: int = _HUB.tail_bytes_total
    access: str = "auto"
    allowed_origins: tuple[str, ...] = ()
    auth_timeout_s: float = _HUB.auth_timeout_s
    auth_deadline_s: float = 5.0
    auth_due_s: float = _HUB.auth_due_s
    log_format: str = "text"
    log_level: str = "info"
    trace: str | None = None
    trace_bytes: int = 1_073_741_824
    sources: Mapping[str, str] = dataclasses.field(default_factory=_no_sources, compare=False, repr=False)
    """Where the value of a field came from: `config.json`, `VIXWS_PORT`, `--port`. Fields at their defaults and
    keyword arguments are not in it; `source` names those too."""

    def __post_init__(self) -> None:
        for setting in SETTINGS:
            value = getattr(self, setting.field)
            try:
                object.__setattr__(self, setting.field, setting.kind.check(value))
            except ValueError:
                source = self.sources.get(setting.field)
                where = f"{source}: {setting.path}" if source else setting.field
                refuse(where, setting, value)
        self._check_together()

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Config:
        """The defaults with a JSON file on top; no environment, no flags. Raises: `ConfigError`."""
        return cls.load(path)

    @classmethod
    def load(
        cls,
        file: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, str | bool] | None = None,
        base: Config | None = None,
    ) -> Config:
        """What a command runs on: `base` (by default the defaults) < `file` < `environ` < `flags`.

        `environ` is a mapping such as `os.environ`, whose `VIXWS_…` variables count; by default there is none.
        `flags` maps names of fields to the texts after the flags. Raises: `ConfigError`.
        """
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        if base is not None:
            values = {setting.field: getattr(base, setting.field) for setting in SETTINGS}
            sources = {name: base.sources.get(name, "the application") for name in base.changed()}
        layers = (
            from_file(file),
            from_environment(environ or {}),
            from_flags(flags or {}),
        )
        for new_values, new_sources in layers:
            values |= new_values
            sources |= new_sources
        return cls(**values, sources=MappingProxyType(sources))

    def replace(self, **changes: object) -> Config:
        """A copy with other values, checked. Raises: `ConfigError`."""
        for name in changes:
            if name not in _FIELDS:
                raise ConfigError(f"{name}: no such setting{suggest(name, _FIELDS)}, got {changes[name]!r:.100}")
        values: dict[str, Any] = {setting.field: getattr(self, setting.field) for setting in SETTINGS}
        sources = {name: source for name, source in self.sources.items() if name not in changes}
        values |= changes
        return Config(**values, sources=MappingProxyType(sources))

    def hub(self, durable: str = _HUB.durable) -> HubConfig:
        """The part that a hub obeys; `durable` comes from its store."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _HUB_FIELDS}
        return HubConfig(**values, durable=durable)

    def changed(self) -> tuple[str, ...]:
        """The fields that are not at their defaults, or were set to them, in the table's order."""
        return tuple(
            setting.field
            for setting in SETTINGS
            if setting.field in self.sources or getattr(self, setting.field) != default(setting)
        )

    def source(self, field: str) -> str:
        """Where a field's value came from: `default`, `argument`, or the place in `sources`."""
        if field in self.sources:
            return self.sources[field]
        return "default" if getattr(self, field) == default(find(field)) else "argument"

    def place(self, field: str) -> str:
        """Where a field's value is given, as messages name it: `config.json: websocket.port`, `--port`."""
        source, setting = self.sources.get(field), find(field)
        if source is None:
            return setting.path
        if source == setting.variable:
            return f"environment: {source}"
        return source if source == setting.flag else f"{source}: {setting.path}"

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port of `metrics_listen`; `None` where it is off."""
        return None if self.metrics_listen == "off" else split_address(self.metrics_listen)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts of `host`, one at least."""
        return tuple(self.host.split(","))

    def _check_together(self) -> None:
        """What one setting asks of another."""
        if self.uvloop and self.backend != "asyncio":
            self._conflict("uvloop", f"false where websocket.backend is {show(self.backend)}", "true")
        for field, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
            if getattr(self, field) is not None and getattr(self, other) is None:
                self._conflict(field, f"{find(other).path} with it", f"{show(getattr(self, field))} alone")
        for less, more in _ORDERED:
            low, high = getattr(self, less), getattr(self, more)
            if low > high and less in self.changed():
                self._conflict(less, f"at most {find(more).path} ({high})", show(low))
            elif low > high:
                self._conflict(more, f"at least {find(less).path} ({low})", show(high))

    def _conflict(self, field: str, expected: str, got: str) -> NoReturn:
        source = self.sources.get(field)
        raise ConfigError(f"{source + ': ' if source else ''}{find(field).path}: expected {expected}, got {got}")


_ORDERED: Final = (
    ("unsent_bytes_low", "unsent_bytes_high"),
    ("unsent_bytes_high", "unsent_bytes_total"),
    ("tail_bytes_room", "tail_bytes_total"),
)
_FIELDS: Final = tuple(setting.field for setting in SETTINGS)
_DEFAULTS: Final[dict[str, Any]] = {field.name: field.default for field in dataclasses.fields(Config)}


def default(setting: Setting) -> Value:
    """A setting's default."""
    value: Value = _DEFAULTS[setting.field]
    return value
