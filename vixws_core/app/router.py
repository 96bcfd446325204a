"""Which function of the application handles what, and how each one's payload is decoded and checked."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast, get_origin, overload

import msgspec

from ..errors import LocalError
from ..message import Json

__all__ = ["BadPayload", "Handler", "Router"]

Function = TypeVar("Function", bound=Callable[..., object])
Decoder = Callable[[bytes], object]

EVERY_TYPE: Final = "*"
"""Guards the publishes of all types."""

_DETAIL_MAX: Final = 300
"""Characters of a validation error that are shown to the peer."""


class BadPayload(ValueError):
    """A payload that does not fit its handler's annotation; the text says where, in one line."""


class Handler:
    """One registered function: how it is run, and how its payload is decoded.

    `waits`: it is `async` or runs in a worker thread, so a shell has to run it. `decode` turns payload bytes
    into what the function takes; where its type `declares` the keys, others are left out. `wants_message`: it takes
    the `AppMessage` as a third argument.
    """

    __slots__ = ("declares", "decode", "function", "is_async", "name", "thread", "waits", "wants_message")

    def __init__(self, function: Callable[..., Any], *, thread: bool = False, typed: bool = False) -> None:
        self.function: Callable[..., Any] = function
        self.name: str = str(getattr(function, "__qualname__", None) or repr(function))
        self.is_async: bool = _is_async(function)
        if thread and self.is_async:
            raise LocalError(f"handler {self.name!r} is async: thread=True is for plain functions that block")
        self.thread: bool = thread
        self.waits: bool = thread or self.is_async
        self.wants_message: bool = False
        self.decode: Decoder = decode_object
        self.declares: bool = False
        if typed:
            name, self.wants_message = _payload_parameter(function, self.name)
            self.decode = _decoder(_annotation(function, name, self.name), self.name)
            self.declares = self.decode is not decode_object


class Router:
    """The handlers of one route. Each decorator takes the function, or `thread=True` first.

    A handler is plain, and runs at once; or `async`, and may wait; or plain with `thread=True`, and may
    block, in a worker thread. One handler per event and per type; a second one raises `LocalError`.
    """

    def __init__(self) -> None:
        self.opened: Handler | None = None
        self.closed: Handler | None = None
        self.failed: Handler | None = None
        self.raw: Handler | None = None
        self.typed: Handler | None = None
        self.bad: Handler | None = None
        self.types: dict[str, Handler] = {}
        self.guards: dict[str, Handler] = {}
        self.guarded: frozenset[str] = frozenset()

    @property
    def is_typed(self) -> bool:
        """Whether text must be a JSON envelope: something typed is registered, or nothing takes raw messages."""
        return self.typed is not None or bool(self.types) or self.raw is None

    @overload
    def on_open(self, function: Function, /) -> Function: ...
    @overload
    def on_open(self, /, *, thread: bool = False) -> Callable[[Function], Function]: ...
    def on_open(self, function: Any = None, /, *, thread: bool = False) -> Any:
        """Registers `handler(session)`, called when a WebSocket is open; its messages wait for it."""
        return self._decorate("opened", function, thread)

    @overload
    def on_close(self, function: Function, /) -> Function: ...
    @overload
    def on_close(self, /, *, thread: bool = False) -> Callable[[Function], Function]: ...
    def on_close(self, function: Any = None, /, *, thread: bool = False) -> Any:
        """Registers `handler(session)`, called once and last, with `close_code` and `close_reason` set."""
        return self._decorate("closed", function, thread)

    @overload
    def on_error(self, function: Function, /) -> Function: ...
    @overload
    def on_error(self, /, *, thread: bool = False) -> Callable[[Function], Function]: ...
    def on_error(self, function: Any = None, /, *, thread: bool = False) -> Any:
        """Registers `handler(session, exception)`, called when another handler raised; 1011 follows."""
        return self._decorate("failed", function, thread)

    @overload
    def on_message(self, function: Function, /) -> Function: ...
    @overload
    def on_message(self, /, *, thread: bool = False) -> Callable[[Function], Function]: ...
    def on_message(self, function: Any = None, /, *, thread: bool = False) -> Any:
        """Registers `handler(session, str | bytes)`, called with every message of the application, raw."""
        return self._decorate("raw", function, thread)

    @overload
    def on_typed_message(self, function: Function, /) -> Function: ...
    @overload
    def on_typed_message(self, /, *, thread: bool = False) -> Callable[[Function], Function]: ...
    def on_typed_message(self, function: Any = None, /, *, thread: bool = False) -> Any:
        """Registers `handler(session, type, payload)` for typed messages that no `on(type)` takes."""
        return self._decorate("typed", function, thread)

    @overload
    def on_bad_payload(self, function: Function, /) -> Function: ...
    @overload
    def on_bad_payload(self, /, *, thread: bool = False) -> Callable[[Function], Function]: ...
    def on_bad_payload(self, function: Any = None, /, *, thread: bool = False) -> Any:
        """Registers `handler(session, type, detail)` for payloads that do not fit; default: `$err bad_message`."""
        return self._decorate("bad", function, thread)

    def on(self, type: str, *, thread: bool = False) -> Callable[[Function], Function]:
        """Registers `handler(session, payload[, message])` for messages of `type`.

        The payload is checked against the parameter's annotation: a `msgspec.Struct`, dataclass, TypedDict or
        pydantic model; without one, or with `dict` or `Mapping`, it is a dict. `message` is the `AppMessage`.
        """
        return self._decorate_type(self.types, "on", type, thread)

    def guard_of(self, type: str, root: Router) -> Handler | None:
        """The guard of publishes of this type, else the one of all types; where the route has none, the server's."""
        mine, roots = self.guards, root.guards
        return mine.get(type) or roots.get(type) or mine.get(EVERY_TYPE) or roots.get(EVERY_TYPE)

    def on_publish(self, type: str = EVERY_TYPE, *, thread: bool = False) -> Callable[[Function], Function]:
        """Registers a guard `handler(session, payload[, message])` for publishes of `type` into a room.

        Without a type it guards those of all types that have no guard of their own. A server's guards hold on all its
        routes, but where a route has one of its own for the type, or for all. It returns None to publish what
        came, or another payload to publish instead; `Refused` refuses. Where the payload's annotation names its keys
        (a Struct, dataclass, TypedDict or model), None passes on those alone. A repeat of a publish runs the guard
        again, and what was stored first stays.
        """
        return self._decorate_type(self.guards, "on_publish", type, thread)

    def _decorate(self, slot: str, function: Callable[..., Any] | None, thread: bool) -> Any:
        def register(function: Function) -> Function:
            known: Handler | None = getattr(self, slot)
            if known is not None:
                raise LocalError(f"one handler for this event, expected none before: {known.name!r} is registered")
            setattr(self, slot, Handler(function, thread=thread))
            return function

        return register if function is None else register(function)

    def _decorate_type(
        self, table: dict[str, Handler], decorator: str, type: str, thread: bool
    ) -> Callable[[Function], Function]:
        if not isinstance(type, str) or not type or type.startswith("$"):  # pyright: ignore[reportUnnecessaryIsInstance] — @server.on without (type) lands here
            raise LocalError(f"{decorator} expects a message type that does not start with '$', got {type!r:.80}")

        def register(function: Function) -> Function:
            if type in table:
                raise LocalError(f"{decorator}({type!r}) is registered already: {table[type].name!r}")
            table[type] = Handler(function, thread=thread, typed=True)
            self.guarded = frozenset(self.guards)
            return function

        return register


# ---- payloads -----------------------------------------------------------------------------------

_decode_json = msgspec.json.Decoder().decode


def decode_object(data: bytes) -> dict[str, Json]:
    """Decodes a payload to a dict. Raises: `BadPayload` where it is no JSON object."""
    try:
        value: Json = _decode_json(data)
    except (ValueError, RecursionError) as exc:
        raise BadPayload(_one_line(exc)) from None
    if not isinstance(value, dict):
        raise BadPayload(f"expected an object, got {value!r:.80}")
    return cast("dict[str, Json]", value)


def _decoder(annotation: Any, handler: str) -> Decoder:
    if annotation in (inspect.Parameter.empty, None, Any, object):
        return decode_object
    origin = get_origin(annotation) or annotation
    if origin in (dict, Mapping):
        return decode_object
    validate: Decoder | None = getattr(annotation, "model_validate_json", None)  # pydantic's, never imported
    if validate is None:
        try:
            validate = msgspec.json.Decoder(annotation).decode
        except TypeError as exc:
            raise LocalError(
                f"handler {handler!r}: payload annotation {annotation!r} is no type to decode: {exc}"
            ) from None
    return functools.partial(_validate, validate)


def _validate(validate: Decoder, data: bytes) -> object:
    try:
        return validate(data)
    except (ValueError, RecursionError) as exc:  # msgspec's and pydantic's errors are ValueErrors.
        raise BadPayload(_one_line(exc)) from None


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:_DETAIL_MAX]


# ---- functions ----------------------------------------------------------------------------------


def _plain_function(function: Any) -> Any:
    """The Python function inside a partial, a bound method or a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(getattr(function, "__func__", function))
    if not inspect.isfunction(function) and not inspect.isclass(function):
        function = type(function).__call__
    return function


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_plain_function(function))


def _payload_parameter(function: Callable[..., Any], handler: str) -> tuple[str, bool]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]
    needed = [p for p in parameters if p.default is inspect.Parameter.empty]
    if len(parameters) < 2 or len(needed) > 3:
        raise LocalError(f"handler {handler!r} must take (session, payload) or (session, payload, message)")
    return parameters[1].name, len(needed) == 3


def _annotation(function: Callable[..., Any], parameter: str, handler: str) -> Any:
    plain = _plain_function(function)
    found = inspect.get_annotations(plain).get(parameter, inspect.Parameter.empty)
    if not isinstance(found, str):
        return found
    names = dict(getattr(plain, "__globals__", {}))
    code = getattr(plain, "__code__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(plain, "__closure__", None) or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # The cell is filled later than the decorator runs.
            continue
    try:
        return eval(found, names)  # The annotation is the program's own text, as in typing.get_type_hints.
    except Exception as exc:
        raise LocalError(
            f"handler {handler!r}: cannot resolve the annotation {found!r} of {parameter!r}: {exc}; "
            "expected a name known in the handler's module (a class inside a function needs no "
            "'from __future__ import annotations')"
        ) from None
