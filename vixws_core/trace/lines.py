"""The lines of a trace: a head, a line for each input that reached a hub's door, and checks of what came out.

    {"vixws":"trace","format":1,…,"hub":{…},"policy":{…},"seed":"…"}    the head, once
    [now,"BytesReceived",{"conn":1,"data":"…"}]                          one input; bytes as base64
    [now,"Join",{"conn":1,"room":"","…":…},"BadRoom"]                    one at which the hub raised that
    ["=",64,305419896]                                                   CRC of the effects of the 64 lines before it

What is read is foreign data: everything is checked, and `TraceError` names the line.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, get_args
from zlib import crc32

import msgspec

from ..config import HubConfig, Policy
from ..effects import Effect
from ..inputs import Input

__all__ = [
    "ALIKE",
    "BEGINNING",
    "FORMAT",
    "INPUTS",
    "Check",
    "Head",
    "Line",
    "Outcome",
    "Record",
    "TraceError",
    "digest_of",
    "encode_batch",
    "encode_head",
    "outcome_of",
    "read_head",
    "read_lines",
]

FORMAT: Final = 1
BEGINNING: Final = b'{"vixws":"trace"'
"""How every trace begins."""

INPUTS: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in get_args(Input)}
"""All inputs, by their names in a trace."""

_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in INPUTS.items()}

_FIELDS: Final = Counter(kind.__struct_fields__ for kind in get_args(Effect))
ALIKE: Final = frozenset(kind for kind in get_args(Effect) if _FIELDS[kind.__struct_fields__] > 1)
"""Effects that have the same fields as another type: where one is, the types are digested as well."""

_JSON: Final = msgspec.json.Encoder()
_PACKED: Final = msgspec.msgpack.Encoder()
_LINE: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NOW: Final = msgspec.json.Decoder(float)
_TEXT: Final = msgspec.json.Decoder(str)
_COUNT: Final = msgspec.json.Decoder(int)

Line = tuple[float, str, Any] | tuple[float, str, Any, str]
"""One step as it is written: the time, the input's name, the input, and the name of what the hub raised."""

Outcome = list[Effect] | tuple[list[Effect], list[str]] | str
"""What a step gave, as it is digested; see `outcome_of`. Of a step that raised, the name of that."""


class TraceError(Exception):
    """A trace cannot be read any further; the text names the line, and what was expected."""


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a trace begins with: all that a hub is made of, and where and when it ran.

    `seed` and `secret` are those of the hub: whoever has them can tell its session tokens.
    """

    vixws: str = "trace"
    format: int = FORMAT
    version: str
    """Of vixws."""
    python: str
    zlib: str
    """Of these depends how compressed messages look."""
    run: str
    """The same in all parts of one trace."""
    first: int
    """The number of the first step in this part; 0: the hub's first."""
    clock: float
    """A reading of the clock of the steps, in seconds,"""
    wall: float
    """and the Unix time then."""
    redacted: bool = False
    hub: HubConfig
    policy: Policy
    seed: bytes
    secret: bytes | None = None


class Record(msgspec.Struct, frozen=True, gc=False):
    """One step as it was written. `input` is None where it could not be: such a step cannot be replayed."""

    line: int
    now: float
    name: str
    input: Any
    raised: str = ""


class Check(msgspec.Struct, frozen=True, gc=False):
    """The digest of the outcomes of the `steps` records before it."""

    line: int
    steps: int
    crc: int


# ---- writing ------------------------------------------------------------------------------------


def encode_head(head: Head) -> bytes:
    """The first line."""
    return _JSON.encode(head) + b"\n"


def encode_batch(lines: Sequence[Line], outcomes: Sequence[Outcome]) -> bytes:
    """The lines of some steps, and their check."""
    end = b'["=",%d,%d]\n' % (len(outcomes), digest_of(outcomes))
    try:
        return _JSON.encode_lines(lines) + end
    except (ValueError, TypeError, OverflowError):
        return b"".join(map(_encode_odd, lines)) + end


def _encode_odd(line: Line) -> bytes:
    """One line, without its input where JSON cannot hold that (a lone surrogate of a command that was refused)."""
    try:
        return _JSON.encode(line) + b"\n"
    except (ValueError, TypeError, OverflowError):
        return _JSON.encode((*line[:2], None, *line[3:])) + b"\n"


def outcome_of(effects: list[Effect]) -> Outcome:
    """What a step gave, as it is digested: with the types of its effects where they might be mistaken."""
    if ALIKE.isdisjoint(map(type, effects)):
        return effects
    return effects, [type(effect).__name__ for effect in effects]


def digest_of(outcomes: Sequence[Outcome]) -> int:
    """A CRC over what some steps gave, bit for bit."""
    try:
        return crc32(_PACKED.encode(outcomes))
    except (ValueError, TypeError, OverflowError):
        return crc32(repr(outcomes).encode("utf-8", "surrogatepass"))


# ---- reading ------------------------------------------------------------------------------------


def read_head(line: bytes) -> Head:
    """The head, from the first line. Raises: `TraceError`."""
    if not line.startswith(BEGINNING):
        raise TraceError("line 1: expected the head of a trace, which begins with " + BEGINNING.decode())
    try:
        head = msgspec.json.decode(line, type=_Format)
        if head.format != FORMAT:
            raise TraceError(f"line 1: expected format {FORMAT}, got {head.format}: another vixws wrote this trace")
        known = {field.name for field in dataclasses.fields(HubConfig)}
        if head.hub.keys() != known:
            odd = ", ".join(sorted(head.hub.keys() ^ known))
            raise TraceError(f"line 1: expected the settings of this vixws, but {odd[:200]} is not in both")
        found = msgspec.json.decode(line, type=Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise TraceError(f"line 1: expected the head of a trace: {exc}") from None
    numbers = [value for value in _numbers(found.hub) if not 0 <= value < math.inf]
    secrets_fit = 1 <= len(found.seed) <= 64 and (found.secret is None or 1 <= len(found.secret) <= 64)
    if numbers or not secrets_fit or found.first < 0:
        raise TraceError("line 1: expected numbers of 0 or more, and a seed and secret of 1 to 64 bytes")
    return found


class _Format(msgspec.Struct):
    """As much of a head as tells whether the rest can be read."""

    format: int
    hub: dict[str, Any]


def _numbers(config: HubConfig) -> Iterator[float]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int | float):
            yield value


def read_lines(lines: Iterable[bytes], line: int = 2) -> Iterator[Record | Check | None]:
    """The records and checks behind a head; `line` is the number of the first of `lines`.

    None, last of all, where the file ends within a line: whoever wrote it was killed. Raises: `TraceError`.
    """
    last = -math.inf
    for text in lines:
        if not text.endswith(b"\n"):
            yield None
            return
        found = _read(text, line)
        if isinstance(found, Record):
            if not last <= found.now < math.inf:
                raise TraceError(f"line {line}: expected a time that does not go back, got {found.now}")
            last = found.now
        yield found
        line += 1


def _read(text: bytes, line: int) -> Record | Check:
    try:
        parts = _LINE.decode(text)
        if len(parts) == 3 and bytes(parts[0]) == b'"="':
            return Check(line, _COUNT.decode(parts[1]), _COUNT.decode(parts[2]))
        if not 3 <= len(parts) <= 4:
            raise TraceError(f"line {line}: expected [now, name, input], got {len(parts)} parts")
        now, name = _NOW.decode(parts[0]), _TEXT.decode(parts[1])
        raised = _TEXT.decode(parts[3]) if len(parts) == 4 else ""
        decoder = _DECODERS.get(name)
        if decoder is None:
            raise TraceError(f"line {line}: expected the name of an input, got {name!r:.80}")
        input = None if bytes(parts[2]) == b"null" else decoder.decode(parts[2])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise TraceError(f"line {line}: {str(exc)[:200]}") from None
    return Record(line, now, name, input, raised)
