"""`vixws replay FILE --redact OUT`: a copy of a trace that may be shown to others."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from typing import Final

from vixws_core.effects import Effect
from vixws_core.hub import Hub
from vixws_core.trace.lines import Check, Head, Line, Outcome, Record, TraceError, encode_batch, encode_head, outcome_of
from vixws_core.trace.redacting import Redactor, decisions_of

from .terminal import OK, CommandFailed, one_line

__all__ = ["redact"]

BATCH_STEPS: Final = 64


def redact(head: Head, records: Iterator[Record | Check | None], out: str, sources: Sequence[str]) -> int:
    """Writes the copy, private as the trace, where nothing is yet; says how many steps decide otherwise in it."""
    if head.first:
        raise TraceError(
            f"the trace begins with step {head.first}: expected the hub's first steps, or no redacted copy"
        )
    try:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CommandFailed(f"--redact {out}: {exc.strerror}, expected a file that is not there yet") from None
    copy = _Copy(head)
    try:
        with open(file, "wb") as target:
            target.write(encode_head(copy.redactor.head))
            for found in records:
                if isinstance(found, Record):
                    copy.take(found)
                    if len(copy.outcomes) >= BATCH_STEPS:
                        target.write(copy.batch())
            target.write(copy.batch())
    except OSError as exc:
        raise CommandFailed(f"--redact {out}: {exc.strerror}") from None
    print(one_line(f"{copy.steps:,} steps of {', '.join(sources)} in {out}"))
    if copy.others:
        print(f"{copy.others:,} of them decide otherwise in the copy, the first is step {copy.first_other}")
    else:
        print("all of them decide the same in the copy")
    return OK


class _Copy:
    """A trace's hub and the copy's hub, side by side."""

    def __init__(self, head: Head) -> None:
        self.redactor = Redactor(head, secrets.token_bytes(32))
        self.lines: list[Line] = []
        self.outcomes: list[Outcome] = []
        self.steps = self.others = self.first_other = 0
        self._hub = Hub(head.hub, seed=head.seed, secret=head.secret, policy=head.policy)
        copied = self.redactor.head
        self._copied = Hub(copied.hub, seed=copied.seed, secret=copied.secret, policy=copied.policy)

    def take(self, record: Record) -> None:
        """Takes one step through both."""
        number, self.steps = self.steps, self.steps + 1
        if record.input is None:
            self._note((record.now, record.name, None, record.raised), record.raised)
            return
        effects, _ = _handled(self._hub, record.input, record.now)
        input = self.redactor.redact(record.input)
        again, raised = _handled(self._copied, input, record.now)
        self.redactor.learn(effects, again)
        if decisions_of(effects) != decisions_of(again):
            self.first_other = number if not self.others else self.first_other
            self.others += 1
        line = (record.now, record.name, input)
        self._note((*line, raised) if raised else line, raised or outcome_of(again))

    def _note(self, line: Line, outcome: Outcome) -> None:
        self.lines.append(line)
        self.outcomes.append(outcome)

    def batch(self) -> bytes:
        """The lines since the last one; nothing where there are none."""
        lines, outcomes = self.lines, self.outcomes
        self.lines, self.outcomes = [], []
        return encode_batch(lines, outcomes) if outcomes else b""


def _handled(hub: Hub, input: object, now: float) -> tuple[list[Effect], str]:
    try:
        return hub.handle(input, now), ""  # type: ignore[arg-type]  # Read by the table of inputs.
    except Exception as exc:  # As it was when it was recorded.
        return [], type(exc).__name__
