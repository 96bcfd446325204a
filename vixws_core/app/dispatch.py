"""Runs an application's handlers: in order, one failure at a time, whether or not they have to wait.

Every message with a `ref` gets one final answer: the handler's own, a refusal, or else `$ack` when it returned.

A record of messages is a generator. Plain handlers run in it at once; where one has to wait (it is `async`,
or blocks in a thread) it yields a `Waiting`, and a shell runs that and sends the outcome back in. So the
rules of order and failure are written once, here, for every loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import is_dataclass
from typing import Any, Final, TypeAlias

import msgspec

from ..codes import BAD_MESSAGE, CLOSE_DENIED, TOO_LARGE, UNKNOWN_TYPE
from ..effects import AppMessage, Effect
from ..errors import Refused, text_of
from ..inputs import Close, HandlerFinished, Input, Publish, Refuse, Send
from ..message import payload_json
from ..names import check_name
from .access import AuthRequest
from .commands import encode_envelope
from .router import BadPayload, Handler, decode_object
from .session import Session, SessionState, state_of

__all__ = ["HandlerCancelled", "HandlerStopped", "Report", "Runner", "Steps", "Waiting", "call"]


class HandlerStopped(Exception):
    """Thrown into a record by the shell: the handler was ended because its session ends; no failure."""


class HandlerCancelled(Exception):
    """A handler ended by a cancellation that was not the server's: a failure like any other."""


PROGRAM_ENDS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is no failure of a handler: it ends the program, or the record."""


def call(handler: Handler, *args: object) -> Any:
    """Calls a plain handler. Raises: what it raises; `HandlerCancelled` for what only looks like the loop's own.

    The result of a task that was cancelled, read in a plain function, cancels nobody else.
    """
    try:
        return handler.function(*args)
    except (Exception, *PROGRAM_ENDS):
        raise
    except BaseException as exc:
        raise HandlerCancelled(type(exc).__name__) from exc


class Waiting(msgspec.Struct, frozen=True):
    """A handler to be run by the shell: awaited, or called in a worker thread where `handler.thread`."""

    handler: Handler
    args: tuple[Any, ...]
    deadline_s: float | None = None
    """Seconds after which a `TimeoutError` is the outcome; None: it may take its time."""


Steps: TypeAlias = Generator[Waiting, object, None]
"""What is left of a record: send it the outcome of each `Waiting`, or throw the exception in."""

_REASON_MAX: Final = 123
"""Bytes of a close reason (RFC 6455 §5.5)."""


Report: TypeAlias = Callable[[Session | AuthRequest | None, Exception, str], object]
"""Hears of a handler's exception: whose message or request it was, the exception, and the handler's name."""


class Runner:
    """Runs handlers. `do` runs a command in the hub, `wait` takes over steps whose next one has to wait."""

    __slots__ = ("_clock", "_do", "_report", "_wait")

    def __init__(
        self,
        do: Callable[[Input], list[Effect]],
        clock: Callable[[], float],
        report: Report,
        wait: Callable[[Steps, Waiting], object],
    ) -> None:
        self._do = do
        self._clock = clock
        self._report = report
        self._wait = wait

    def start(self, steps: Steps) -> None:
        """Runs steps up to the first that has to wait; the shell takes it from there."""
        for waiting in steps:
            self._wait(steps, waiting)
            return

    def record(self, session: Session, messages: tuple[AppMessage | str | bytes, ...]) -> Steps:
        """Runs the handlers of one record of messages, in order."""
        state = state_of(session)
        state.begin()
        started = self._clock()
        raw = state.router.raw
        first = messages[0]
        name = first.type if type(first) is AppMessage else ""
        failure: Exception | None = None
        handler = raw
        try:
            for message in messages:
                if not state.handles:
                    break
                try:
                    if type(message) is not AppMessage:
                        name = ""
                        if raw is not None:
                            handler = raw
                            if raw.waits:
                                yield Waiting(raw, (session, message))
                            else:
                                raw.function(session, message)
                        continue
                    state.handling(message.ref)
                    if message.type != name:
                        name = ""
                    if message.room is not None:
                        handler = state.router.guard_of(message.type, state.root)
                        yield from self._guard(session, state, message, handler)
                        continue
                    if raw is not None:
                        handler = raw
                        if raw.waits:
                            yield Waiting(raw, (session, message.text))
                        else:
                            raw.function(session, message.text)
                    answer: Any = None
                    handler, args = self._typed_call(session, state, message)
                    if handler is not None:
                        if handler.waits:
                            answer = yield Waiting(handler, args)
                        else:
                            answer = handler.function(*args)
                    if state.owes is not None:
                        self._acknowledge(session, state.owes, answer)
                except Refused as exc:
                    ref = state.owes
                    state.answered(ref)
                    self._do(Refuse(session.id, exc.code, text_of(exc), ref))
        except HandlerStopped:
            pass  # Its session ends, and the application wants that to end its handlers.
        except Exception as exc:
            failure = exc
        except GeneratorExit:
            state.finished()
            raise
        except PROGRAM_ENDS:
            raise
        except BaseException as exc:  # As in `call`, which would be one call more for each message.
            failure = HandlerCancelled(type(exc).__name__)
            failure.__cause__ = exc
        if failure is not None:
            yield from self._failed(session, failure, handler)
        self._finish(session, HandlerFinished(session.id, name, self._clock() - started, failure is not None))

    def _typed_call(
        self, session: Session, state: SessionState, message: AppMessage
    ) -> tuple[Handler | None, tuple[Any, ...]]:
        """The handler of a typed message, and its arguments."""
        router = state.router
        handler = router.types.get(message.type)
        try:
            if handler is not None:
                payload = handler.decode(message.payload)
                return handler, (session, payload, message) if handler.wants_message else (session, payload)
            if router.typed is not None:
                return router.typed, (session, message.type, decode_object(message.payload))
        except BadPayload as exc:
            if router.bad is None:
                raise Refused(str(exc), BAD_MESSAGE) from None
            if message.ref is not None:  # Every `ref` gets its one answer, whatever the handler says besides.
                self._do(Refuse(session.id, BAD_MESSAGE, str(exc), message.ref))
                state.answered(message.ref)
            return router.bad, (session, message.type, str(exc))
        if router.raw is None and message.ref is not None:
            raise Refused(f"no handler for the type {message.type!r:.80}", UNKNOWN_TYPE)
        return None, ()

    def _acknowledge(self, session: Session, ref: str, answer: object) -> None:
        """Gives a message that its handler left unanswered its `$ack`, with what the handler returned."""
        session.answer_later(ref)
        text = encode_envelope("$ack", answer if _is_object(answer) else None, ref)
        self._do(Send(session.id, text, answer=True))

    def _guard(self, session: Session, state: SessionState, message: AppMessage, guard: Handler | None) -> Steps:
        """Asks the guard of a publish, then publishes, or the refusal goes up."""
        payload, room = message.payload, check_name(message.room or "")  # Before any code of the application sees it.
        if guard is not None:
            try:
                decoded = guard.decode(payload)
            except BadPayload as exc:
                raise Refused(str(exc), BAD_MESSAGE) from None
            args = (session, decoded, message) if guard.wants_message else (session, decoded)
            if guard.waits:
                answer: Any = yield Waiting(guard, args)
            else:
                answer = call(guard, *args)
            if answer is None and guard.declares:
                # What its type does not name was not looked at, and is not passed on.
                dump = getattr(decoded, "model_dump_json", None)  # A pydantic model: by the names that came.
                answer = decoded if dump is None else dump(by_alias=True).encode()
            if answer is not None:
                payload = payload_json(answer)
                if len(payload) > session.message_bytes_max:
                    raise Refused(f"the guard's payload is over {session.message_bytes_max} bytes", TOO_LARGE)
        self._do(
            Publish(
                room,
                message.type,
                payload,
                message.kind,
                message.mid,
                conn=session.id,
                ref=state.owes,
                sent=message.payload if payload is not message.payload else None,
            )
        )
        state.answered(state.owes)

    def opening(self, session: Session, subprotocol: str | None) -> Steps:
        """Opens a session and runs `on_open`; `Refused` there closes with 4003."""
        state = state_of(session)
        state.opened(subprotocol)
        started = self._clock()
        handler = state.router.opened
        failed = False
        if handler is not None:
            try:
                if handler.waits:
                    yield Waiting(handler, (session,))
                else:
                    call(handler, session)
            except Refused as exc:
                reason = text_of(exc).encode(errors="replace")[:_REASON_MAX].decode(errors="ignore")
                state.closing()
                self._do(Close(session.id, CLOSE_DENIED, reason))
            except HandlerStopped:
                pass
            except Exception as exc:
                failed = True
                yield from self._failed(session, exc, handler)
            except GeneratorExit:
                state.finished()
                raise
        self._finish(session, HandlerFinished(session.id, "", self._clock() - started, failed))

    def ended(self, session: Session, code: int, reason: str) -> None:
        """A session is over: `on_close` runs, after the handler that may be running."""
        if state_of(session).ended(code, reason):
            self.start(self.closing(session))

    def closing(self, session: Session) -> Steps:
        """Runs `on_close`."""
        handler = state_of(session).router.closed
        if handler is not None:
            try:
                if handler.waits:
                    yield Waiting(handler, (session,))
                else:
                    call(handler, session)
            except Exception as exc:
                yield from self._failed(session, exc, handler)

    def _failed(self, session: Session, exc: Exception, handler: Handler | None) -> Steps:
        """Reports a handler's exception, and tells `on_error`."""
        self._report(session, exc, "" if handler is None else handler.name)
        failed = state_of(session).router.failed
        if failed is not None:
            try:
                if failed.waits:
                    yield Waiting(failed, (session, exc))
                else:
                    call(failed, session, exc)
            except Exception as second:
                self._report(session, second, failed.name)

    def _finish(self, session: Session, finished: HandlerFinished) -> None:
        over = state_of(session).finished()  # What is told while the command runs is the application's to see to.
        self._do(finished)
        if over:
            self.start(self.closing(session))


def _is_object(answer: object) -> bool:
    """Whether what a handler returned becomes a JSON object."""
    if isinstance(answer, Mapping | msgspec.Struct):
        return True
    return not isinstance(answer, type) and (is_dataclass(answer) or hasattr(answer, "model_dump_json"))
