"""What the value of a setting may be: read from text or JSON, with the words that say what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from vixws_core.retention import Retention

__all__ = [
    "Address",
    "Choice",
    "Hosts",
    "Kind",
    "Number",
    "Optional",
    "Switch",
    "Text",
    "Value",
    "Whole",
    "Words",
    "is_host",
    "split_address",
]

Value = str | int | float | bool | tuple[str, ...] | tuple[Retention, ...] | None
"""What a setting holds once it is read."""

HOSTS_MAX: Final = 16
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][+-]?[0-9]{1,2})?")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class Kind(Protocol):
    """A kind of value. Both ways in raise `ValueError` for what does not fit; its text is not shown."""

    @property
    def expected(self) -> str:
        """What fits, in words that go on after "expected"."""
        ...

    @property
    def range(self) -> str:
        """What fits, for a column of a table."""
        ...

    def parse(self, text: str) -> Value:
        """Reads the text of a variable or flag."""
        ...

    def check(self, value: object) -> Value:
        """Takes a value from JSON or from a caller."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer from `low` to `high`, in `unit`."""

    low: int
    high: int
    unit: str = ""

    @property
    def expected(self) -> str:
        """In words."""
        return f"an integer from {self.low} to {self.high}{self.unit and ' ' + self.unit}"

    @property
    def range(self) -> str:
        """In short."""
        return f"{self.low:,} … {self.high:,}{self.unit and ' ' + self.unit}"

    def parse(self, text: str) -> Value:
        """Decimal digits only."""
        if _INTEGER.fullmatch(text.strip()) is None:
            raise ValueError(text)
        return self.check(int(text))

    def check(self, value: object) -> Value:
        """An integer within bounds; `true` is none."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`, in `unit`; with `off`, 0 and the word `off` switch it off."""

    low: float
    high: float
    unit: str = "seconds"
    off: bool = False

    @property
    def expected(self) -> str:
        """In words."""
        words = f"a number from {self.low:g} to {self.high:.15g} {self.unit}"
        return f'{words}, or "off"' if self.off else words

    @property
    def range(self) -> str:
        """In short."""
        return f"{self.low:g} … {self.high:,.15g} {self.unit}{', or `off` (0)' if self.off else ''}"

    def parse(self, text: str) -> Value:
        """Decimal, with a fraction or an exponent."""
        text = text.strip()
        if self.off and text == "off":
            return 0.0
        if _NUMBER.fullmatch(text) is None:
            raise ValueError(text)
        return self.check(float(text))

    def check(self, value: object) -> Value:
        """A number within bounds; `true` and not-a-number are none."""
        if self.off and value == "off":
            return 0.0
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(value)
        if not (self.low <= value <= self.high or (self.off and value == 0)):
            raise ValueError(value)
        return float(value)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def expected(self) -> str:
        """In words."""
        return " or ".join(f'"{word}"' for word in self.words)

    @property
    def range(self) -> str:
        """In short."""
        return ", ".join(f"`{word}`" for word in self.words)

    def parse(self, text: str) -> Value:
        """The word itself."""
        return self.check(text.strip())

    def check(self, value: object) -> Value:
        """The word itself."""
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Switch:
    """On or off."""

    @property
    def expected(self) -> str:
        """In words."""
        return "true or false"

    @property
    def range(self) -> str:
        """In short."""
        return "`true`, `false`"

    def parse(self, text: str) -> Value:
        """The usual words for yes and no."""
        word = text.strip().lower()
        if word not in _TRUE and word not in _FALSE:
            raise ValueError(text)
        return word in _TRUE

    def check(self, value: object) -> Value:
        """A JSON boolean."""
        if not isinstance(value, bool):
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """A string that `fits` accepts; `expected` says which."""

    expected: str
    range: str
    fits: Callable[[str], bool]

    def parse(self, text: str) -> Value:
        """The text as it is."""
        return self.check(text)

    def check(self, value: object) -> Value:
        """A string that fits, of printable characters."""
        if not isinstance(value, str) or not value.isprintable() or not self.fits(value):
            raise ValueError(value)
        return value


@dataclass(frozen=True, slots=True)
class Address:
    """`HOST:PORT`, an IPv6 address in brackets, or `off`."""

    @property
    def expected(self) -> str:
        """In words."""
        return 'HOST:PORT (an IPv6 host in brackets) or "off"'

    @property
    def range(self) -> str:
        """In short."""
        return "`HOST:PORT`, `[IPv6]:PORT`, `off`"

    def parse(self, text: str) -> Value:
        """The text as it is."""
        return self.check(text.strip())

    def check(self, value: object) -> Value:
        """A string that `split_address` takes apart, or `off`."""
        if not isinstance(value, str):
            raise ValueError(value)
        if value != "off":
            split_address(value)
        return value


@dataclass(frozen=True, slots=True)
class Hosts:
    """One host or several, at most 16: text separated by commas, and in JSON also a list. Held as that text."""

    @property
    def expected(self) -> str:
        """In words."""
        return f"a host name or an IP address, or up to {HOSTS_MAX} of them"

    @property
    def range(self) -> str:
        """In short."""
        return "name or IP address, or a list of them; text: separated by commas"

    def parse(self, text: str) -> Value:
        """Hosts separated by commas."""
        return self.check(text)

    def check(self, value: object) -> Value:
        """A text of hosts, or a list of them; each counts once."""
        given = value.split(",") if isinstance(value, str) else value
        if not isinstance(given, (list, tuple)):
            raise ValueError(value)
        listed = cast("Sequence[object]", given)
        hosts = dict.fromkeys(host.strip() for host in listed[: HOSTS_MAX + 1] if isinstance(host, str))
        if not 0 < len(listed) <= HOSTS_MAX or not all(isinstance(host, str) for host in listed):
            raise ValueError(value)
        if not all(map(is_host, hosts)):
            raise ValueError(value)
        return ",".join(hosts)


def split_address(text: str) -> tuple[str, int]:
    """The host, without brackets, and the port of `HOST:PORT`. Raises: `ValueError`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            raise ValueError(text)
    elif ":" in host:
        raise ValueError(text)
    if not colon or not is_host(host) or re.fullmatch("[0-9]{1,5}", port) is None or int(port) > 65_535:
        raise ValueError(text)
    return host, int(port)


def is_host(text: str) -> bool:
    """Whether it looks like a name or an address: no spaces, slashes, brackets or port; ≤ 253 characters."""
    if ":" in text:
        return re.fullmatch(r"[0-9a-fA-F:.]{2,45}(?:%[0-9A-Za-z._-]{1,16})?", text) is not None
    return re.fullmatch(r"(?=.{1,253}$)[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_.])?", text) is not None


@dataclass(frozen=True, slots=True)
class Words:
    """A list of strings, each accepted by `fits`; separated by commas in a variable or flag. At most 1,000."""

    of: str
    fits: Callable[[str], bool]

    @property
    def expected(self) -> str:
        """In words."""
        return f"a list of {self.of}, at most 1000"

    @property
    def range(self) -> str:
        """In short."""
        return f"list of {self.of}; text: separated by commas"

    def parse(self, text: str) -> Value:
        """Nothing, or words separated by commas."""
        return self.check([word.strip() for word in text.split(",")] if text.strip() else [])

    def check(self, value: object) -> Value:
        """A list or tuple of strings that fit."""
        if not isinstance(value, (list, tuple)):
            raise ValueError(value)
        given = cast("Sequence[object]", value)
        words = tuple(word for word in given if isinstance(word, str) and self.fits(word))
        if len(words) != len(given) or len(given) > 1_000:
            raise ValueError(given)
        return words


@dataclass(frozen=True, slots=True)
class Optional:
    """Another kind, or nothing: `null` in JSON, the empty text elsewhere."""

    kind: Kind

    @property
    def expected(self) -> str:
        """In words."""
        return f"{self.kind.expected}, or nothing"

    @property
    def range(self) -> str:
        """In short."""
        return f"{self.kind.range}, or `null`"

    def parse(self, text: str) -> Value:
        """Nothing for the empty text."""
        return self.kind.parse(text) if text else None

    def check(self, value: object) -> Value:
        """Nothing for `null`."""
        return None if value is None else self.kind.check(value)
