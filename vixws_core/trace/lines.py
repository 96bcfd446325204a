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
from itertools import chain
from typing import Any, Final, get_args
from zlib import crc32

import msgspec

from ..config import HubConfig, Policy
from ..effects import Effect
from ..inputs import Input

__all__ = [
    "BEGINNING",
    "FORMAT",
    "INPUTS",
    "Batch",
    "Check",
    "Head",
    "Record",
    "TraceError",
    "digest_of",
    "encode_batch",
    "encode_head",
    "read_head",
    "read_lines",
]

FORMAT: Final = 1
BEGINNING: Final = b'{"vixws":"trace"'
"""How every trace begins."""

INPUTS: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in get_args(Input)}
"""All inputs, by their names in a trace."""

_NAMES: Final[dict[type[Any], str]] = {kind: name for name, kind in INPUTS.items()}
_DECODERS: Final = {name: msgspec.json.Decoder(kind) for name, kind in INPUTS.items()}

_FIELDS: Final = {kind: kind.__struct_fields__ for kind in get_args(Effect)}
_ALIKE: Final = tuple(
    {
        bytes((0x80 + len(names), 0xA0 + len(names[0]))) + names[0].encode()
        for names, count in Counter(names for names in _FIELDS.values() if names).items()
        if count > 1
    }
)
"""How effects begin in MessagePack that another type of effect looks like: where one may be, types are hashed as well."""
_NUMBERS: Final = {kind: number for number, kind in enumerate((*get_args(Effect), str))}

_JSON: Final = msgspec.json.Encoder()
_PACKED: Final = msgspec.msgpack.Encoder()
_LINE: Final = msgspec.json.Decoder(list[msgspec.Raw])
_NOW: Final = msgspec.json.Decoder(float)
_TEXT: Final = msgspec.json.Decoder(str)
_COUNT: Final = msgspec.json.Decoder(int)

Batch = list[Any]
"""Steps in a flat list: `now, input, outcome, now, input, outcome, …`; an outcome is a list of effects, or the name of
what the hub raised."""


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


def encode_batch(batch: Batch, raised: bool = False) -> bytes:
    """The lines of some steps, with their check; `raised`: the outcome of some may be a name."""
    names = map(_NAMES.__getitem__, map(type, batch[1::3]))
    outcomes = batch[2::3]
    lines: Iterable[tuple[Any, ...]] = zip(batch[::3], names, batch[1::3], strict=True)
    if raised:
        lines = [(*line, out) if isinstance(out, str) else line for line, out in zip(lines, outcomes, strict=True)]
    end = b'["=",%d,%d]\n' % (len(outcomes), digest_of(outcomes))
    try:
        return _JSON.encode_lines(lines) + end
    except (ValueError, TypeError, OverflowError):
        return b"".join(map(_encode_odd, batch[::3], batch[1::3], outcomes)) + end


def _encode_odd(now: float, input: object, outcome: object) -> bytes:
    """One line, without its input where JSON cannot hold that (a lone surrogate of a command that was refused)."""
    more = (outcome,) if isinstance(outcome, str) else ()
    name = _NAMES[type(input)]
    try:
        return _JSON.encode((now, name, input, *more)) + b"\n"
    except (ValueError, TypeError, OverflowError):
        return _JSON.encode((now, name, None, *more)) + b"\n"


def digest_of(outcomes: Sequence[Any]) -> int:
    """A CRC over what some steps gave, bit for bit."""
    try:
        packed = _PACKED.encode(outcomes)
    except (ValueError, TypeError, OverflowError):
        packed = repr(outcomes).encode("utf-8", "surrogatepass")
    crc = crc32(packed)
    for beginning in _ALIKE:
        if beginning in packed:
            kinds = map(type, chain.from_iterable(out if isinstance(out, list) else (out,) for out in outcomes))
            return crc32(bytes(map(_NUMBERS.__getitem__, kinds)), crc)
    return crc


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
