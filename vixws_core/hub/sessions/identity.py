"""Who sessions are: proved at the upgrade or with the first message, proved again, and ended (PROTOCOL §2, §10)."""

from __future__ import annotations

from ...codes import (
    CLOSE_BAD_TOKEN,
    CLOSE_OVERLOADED,
    CLOSE_TOKEN_EXPIRED,
    DENIED,
    INTERNAL,
    RATE_LIMITED,
)
from ...config import Policy
from ...effects import Authenticate, Opened, PeerMisbehaved
from ...errors import Refused
from ...inputs import Accept, Authenticated
from ...wire import envelope as wire
from ..asks import Asks, ProofAsked
from ..connection.outbox import Outbox
from ..identity import Identity
from ..model import FAR, SENDABLE, Session
from ..step import Step
from .grants import Grants
from .lifecycle import Lifecycle
from .rates import Rates

__all__ = ["PROOF_ASKS", "Identities"]

PROOF_ASKS = 8
"""Questions that an `$auth` counts as: whoever guesses tokens is as slow as their rate of questions makes them."""


class Identities:
    """Has proofs looked at, and ends sessions whose proof is over."""

    __slots__ = ("_asks", "_grants", "_lifecycle", "_outbox", "_policy", "_rates", "_step")

    def __init__(
        self,
        step: Step,
        outbox: Outbox,
        asks: Asks,
        lifecycle: Lifecycle,
        rates: Rates,
        grants: Grants,
        policy: Policy,
    ) -> None:
        self._step = step
        self._outbox = outbox
        self._asks = asks
        self._lifecycle = lifecycle
        self._rates = rates
        self._grants = grants
        self._policy = policy

    def begin(self, input: Accept) -> Identity | None:
        """Who a session is from its first byte on; None where nobody is asked."""
        if self._policy.trusting:
            return None
        now, config = self._step.now, self._step.config
        if self._policy.authenticated and input.user is None:
            return Identity(None, False, now + config.auth_timeout_s)
        identity = Identity(input.user, True, FAR)
        self._set_end(identity, input.expires_in_s)
        return identity

    def began(self, session: Session, opened: Opened) -> None:
        """A session is open: that is told now, or once it has proved who it is."""
        identity = session.identity
        if identity is None or identity.proved:
            self._step.out.append(opened)
        else:
            identity.opening = opened
        if identity is not None:
            if identity.user is not None:
                self._rates.share(session)
                self._lifecycle.know(session)
            self._grants.rearm(session)

    def _set_end(self, identity: Identity, expires_in_s: float | None) -> None:
        identity.ends_at = FAR if expires_in_s is None else self._step.now + expires_in_s
        identity.due_at = identity.ends_at - self._step.config.auth_due_s

    # ---- a proof in a message ---------------------------------------------------------------------

    def ask(self, session: Session, token: str) -> None:
        """Has the token of a `$hello` or `$auth` looked at; the message waits."""
        conn = session.connection.id
        self._step.out.append(Authenticate(self._asks.put(ProofAsked(conn)), conn, token))

    def answered(self, asked: ProofAsked, input: Authenticated) -> Session | None:
        """The application's word on a token; returns the session whose `$auth` goes on now."""
        connection = self._step.connections.get(asked.conn)
        session = None if connection is None else connection.session
        if connection is None or session is None or (identity := session.identity) is None:
            return None
        if not identity.proved:
            if connection.state in SENDABLE:
                self._first(session, identity, input)
            return session if identity.user is None else None
        same = input.user is not None and input.user == identity.user and input.expires_in_s != 0
        code = "" if same else DENIED if input.user is not None else input.code
        identity.proof = (code, (input.expires_in_s, input.expires))
        return session

    def _first(self, session: Session, identity: Identity, input: Authenticated) -> None:
        """The proof that comes with `$hello`: the application hears of the session now."""
        connection = session.connection
        if input.user is not None and input.expires_in_s != 0:
            identity.prove(input.user)
            self._set_end(identity, input.expires_in_s)
            self._rates.share(session)
            self._lifecycle.know(session)
            self._outbox.forget_everyone()
            self._grants.rearm(session)
            assert identity.opening is not None  # It was accepted without a user.
            self._step.out.append(identity.opening)
        elif input.code == INTERNAL:
            self._lifecycle.close(connection, CLOSE_OVERLOADED, "who you are could not be told")
        else:
            self._step.out.append(PeerMisbehaved(connection.id, DENIED, "a token that proves nothing"))
            self._lifecycle.close(connection, CLOSE_BAD_TOKEN, f"bad_token: {input.message}"[:100])

    def renew(self, session: Session, ref: str | None, token: str) -> bool:
        """`$auth`: another proof of the same user. False: it waits. Raises: `Refused`."""
        identity = session.identity
        if identity is None or identity.user is None:
            raise Refused("nobody has to prove who they are here")
        if (proof := identity.proof) is None:
            if identity.renewing:
                raise Refused("another $auth is not answered yet", RATE_LIMITED)
            self._rates.asks(session, PROOF_ASKS)
            self.ask(session, token)
            return False
        identity.proof = None
        code, told = proof
        if code:
            raise Refused("the token proves nothing, or somebody else", code)
        self._set_end(identity, told[0])
        self._grants.renew(session, ref, told)
        self._grants.rearm(session)
        return True

    @staticmethod
    def forget_proof(session: Session) -> None:
        """The message that waited for the word was handled: the word is not for another one."""
        if session.identity is not None:
            session.identity.proof = None

    # ---- time -------------------------------------------------------------------------------------

    def due(self, session: Session) -> None:
        """Something of a session's identity is over, or soon."""
        identity, connection, now = session.identity, session.connection, self._step.now
        assert identity is not None  # It has something that ends.
        if now >= identity.ends_at:
            if identity.proved:
                self._lifecycle.close(connection, CLOSE_TOKEN_EXPIRED, "token_expired")
            else:
                self._step.out.append(PeerMisbehaved(connection.id, DENIED, "no proof in time"))
                self._lifecycle.close(connection, CLOSE_BAD_TOKEN, "bad_token: no $hello with a token in time")
            return
        if now >= identity.due_at and session.hello:
            identity.due_at = FAR
            left = round(max(0.0, identity.ends_at - now) * 1000)
            payload = {"in_ms": left, "deadline_ms": left}
            self._outbox.answer(connection, wire.answer("$auth.due", payload=payload))
        self._grants.due(session)
