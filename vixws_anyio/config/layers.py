"""The layers of a configuration: what a JSON file, the environment and flags say, each with its place."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from vixws_core.errors import LocalError
from vixws_core.retention import Retention

from .settings import SECTIONS, SETTINGS, Setting, Value, find

__all__ = [
    "ConfigError",
    "from_environment",
    "from_file",
    "from_flags",
    "plain",
    "refuse",
    "show",
    "show_given",
    "show_key",
    "suggest",
]

FILE_BYTES_MAX: Final = 1 << 20
"""Largest configuration file."""

_SERVICE_LINK: Final = re.compile("VIXWS_(?:SERVICE|PORT)_.*")
"""What Kubernetes sets in every container beside a service called `vixws`."""

Layer = tuple[dict[str, Value], dict[str, str]]
"""Values by field, and where each came from."""


class ConfigError(LocalError):
    """A mistake in a configuration: one line that names the place, the key, the value and what was expected."""


def show(value: object) -> str:
    """A setting's value as `show_given` has it; whole seconds without a fraction."""
    return show_given(int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value)


def show_given(value: object) -> str:
    """What somebody gave, as JSON has it, cut to 100 characters, on one line: 9090.0 is not 9090."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=plain)
    except (TypeError, ValueError):
        text = repr(value)
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return text if len(text) <= 100 else text[:99] + "…"


def plain(value: object) -> object:
    """A value of a setting that JSON does not know, as JSON has it. Raises: `TypeError` for others."""
    if isinstance(value, Retention):
        return value.as_json()
    raise TypeError(value)


def refuse(where: str, setting: Setting, value: object) -> NoReturn:
    """Raises the error of a value that does not fit."""
    raise ConfigError(f"{where}: expected {setting.kind.expected}, got {show_given(value)}") from None


def suggest(name: str, names: Iterable[str]) -> str:
    """A question that names the likeliest of `names`, however it was written."""
    plain = {_bare(known): known for known in names}
    found = get_close_matches(_bare(name), plain, 1, 0.7)
    return f" (did you mean {plain[found[0]]}?)" if found else ""


def _bare(name: str) -> str:
    return re.sub("^VIXWS_|[-_]", "", name).lower()


# ---- files ------------------------------------------------------------------------------------------


class _Repeated(ValueError):
    """A key that stands twice in one object."""


def from_file(path: str | os.PathLike[str] | None) -> Layer:
    """What a JSON file says; nothing without a path. Raises: `ConfigError`."""
    if path is None:
        return {}, {}
    name = os.fspath(path)
    sections = _object(found := _read(name))
    if sections is None:
        raise ConfigError(f"{name}: expected an object of the sections {', '.join(SECTIONS)}, got {show_given(found)}")
    values: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for section, content in sections.items():
        if section not in SECTIONS:
            raise ConfigError(f"{name}: {show_key(section)}: {_misplaced(section)}, got {show_given(content)}")
        entries = _object(content)
        if entries is None:
            raise ConfigError(f"{name}: {section}: expected an object of settings, got {show_given(content)}")
        known = {key: one for one in SETTINGS if one.section == section for key in (one.key, one.snake_key)}
        for key, value in entries.items():
            setting = known.get(key)
            where = f"{name}: {section}.{show_key(key)}"
            if setting is None:
                raise ConfigError(f"{where}: {_unknown(section, key)}, got {show_given(value)}")
            if setting.field in values:
                raise ConfigError(f"{where}: expected the setting once, got {setting.key} and {setting.snake_key}")
            try:
                values[setting.field] = setting.kind.check(value)
            except ValueError:
                refuse(where, setting, value)
            sources[setting.field] = name
    return values, sources


def _object(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _read(name: str) -> Any:
    try:
        with Path(name).open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise ConfigError(f"{show_key(name)}: expected a readable JSON file: {why.lower()}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{name}: expected a JSON file of at most {FILE_BYTES_MAX} bytes, got more")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{name}: expected UTF-8, got the byte 0x{data[exc.start]:02x} at {exc.start}") from None
    try:
        # NaN and Infinity, which JSON has not, become numbers here: no setting takes them, so its key is named.
        return json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as exc:
        rest = text[exc.pos :].split("\n", 1)[0][:20]
        why = exc.msg[0].lower() + exc.msg[1:]
        where = f"line {exc.lineno} column {exc.colno}"
        raise ConfigError(
            f"{name}: {where}: expected JSON ({why}), got {show_given(rest) if rest else 'its end'}"
        ) from None
    except _Repeated as exc:
        raise ConfigError(f"{name}: {exc}") from None
    except RecursionError:
        raise ConfigError(f"{name}: expected an object of sections, got one nested too deep") from None
    except ValueError as exc:  # An integer of thousands of digits.
        raise ConfigError(f"{name}: expected JSON: {exc}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Repeated(
                f"{show_key(key)}: expected the key once in its object, got it again with {show_given(value)}"
            )
        found[key] = value
    return found


def show_key(key: str) -> str:
    """A key as it is where that is readable, else as JSON."""
    return key if key.isprintable() and 0 < len(key) <= 100 and key.strip() == key else show_given(key)


def _misplaced(key: str) -> str:
    for setting in SETTINGS:
        if key in (setting.key, setting.snake_key):
            return f"expected it inside {setting.section!r}"
    return f"unknown section, expected one of {', '.join(SECTIONS)}{suggest(key, SECTIONS)}"


def _unknown(section: str, key: str) -> str:
    for setting in SETTINGS:
        if setting.section != section and key in (setting.key, setting.snake_key):
            return f"unknown setting, expected it inside {setting.section!r}"
    for setting in SETTINGS:
        if setting.field == key:
            return f"unknown setting (did you mean {setting.path}?)"
    keys = tuple(setting.key for setting in SETTINGS if setting.section == section)
    return f"unknown setting{suggest(key, keys)}"


# ---- environment and flags --------------------------------------------------------------------------


def from_environment(environ: Mapping[str, str]) -> Layer:
    """What the `VIXWS_…` variables say. Raises: `ConfigError`, for one that is unknown too."""
    known = {setting.variable: setting for setting in SETTINGS}
    values: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for name, text in environ.items():
        if not name.startswith("VIXWS_"):
            continue
        setting = known.get(name)
        if setting is None:
            if _SERVICE_LINK.fullmatch(name):
                continue
            raise ConfigError(
                f"environment: {name}: unknown variable{suggest(name, tuple(known))}, got {show_given(text)}"
            )
        try:
            values[setting.field] = setting.kind.parse(text)
        except ValueError:
            refuse(f"environment: {name}", setting, text)
        sources[setting.field] = name
    return values, sources


def from_flags(flags: Mapping[str, str | bool]) -> Layer:
    """What flags say, by field. Raises: `ConfigError`."""
    values: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for field, given in flags.items():
        setting = find(field)
        kind = setting.kind
        try:
            values[field] = kind.check(given) if isinstance(given, bool) else kind.parse(given)
        except ValueError:
            refuse(setting.flag, setting, given)
        sources[field] = setting.flag
    return values, sources
