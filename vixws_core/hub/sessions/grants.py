"""What sessions may do: asked of the application, kept for a time, asked again, and taken back (PROTOCOL §10)."""

from __future__ import annotations

from ...codes import CLOSE_DENIED, DENIED, RATE_LIMITED
from ...config import Policy
from ...effects import Authorize
from ...errors import BadRoom, Refused
from ...inputs import Authorized, Revoke
from ...names import check_name, user_room
from ...wire import envelope as wire
from ..asks import Asks, GrantAsked, MembershipAsked
from ..connection.outbox import Outbox
from ..connection.timers import Timers
from ..identity import Expiry, Identity
from ..model import FAR, SENDABLE, Member, Session
from ..rooms.members import Members
from ..step import Step
from .lifecycle import Lifecycle
from .rates import Rates

__all__ = ["EXPIRED", "REVOKED", "Grants"]

REVOKED = "revoked"
EXPIRED = "expired"
"""What `$kicked` says."""


class Grants:
    """Answers whether a session may do something, and puts those out of a room who may not any more."""

    __slots__ = ("_asks", "_lifecycle", "_members", "_outbox", "_policy", "_rates", "_step", "_timers")

    def __init__(
        self,
        step: Step,
        timers: Timers,
        outbox: Outbox,
        asks: Asks,
        members: Members,
        lifecycle: Lifecycle,
        rates: Rates,
        policy: Policy,
    ) -> None:
        self._step = step
        self._timers = timers
        self._outbox = outbox
        self._asks = asks
        self._members = members
        self._lifecycle = lifecycle
        self._rates = rates
        self._policy = policy

    # ---- may it? ----------------------------------------------------------------------------------

    def may(self, session: Session, action: str, room: str) -> bool | None:
        """Whether it may; None: the application was asked, and the message waits for its word.

        Raises: `BadRoom` for a user's room where there are no users, `Refused` where the application failed.
        """
        identity = session.identity
        if identity is None:
            if room[0] == "@":
                raise BadRoom(f"room {room!r:.60} is reserved: there is nobody here whose room it could be")
            return True
        verdict = identity.verdict
        if verdict is not None and verdict[0] == action and verdict[1] == room:
            identity.verdict = None
            if verdict[3]:
                raise Refused("whether this is granted could not be told", verdict[3])
            return verdict[2]
        known = self._known(identity, action, room)
        if known is not None:
            return known
        self._rates.asks(session, 1)
        asked = GrantAsked(session.connection.id, action, room, identity.revision)
        self._step.out.append(Authorize(self._asks.put(asked), session.connection.id, action, room))
        return None

    def holds(self, session: Session, action: str, room: str) -> bool:
        """Whether it is granted now, as far as is known without asking."""
        identity = session.identity
        return identity is None or self._known(identity, action, room) is True

    def _known(self, identity: Identity, action: str, room: str) -> bool | None:
        if room[0] == "@" and action != "publish":
            return identity.owns(room)
        if not self._policy.authorized:
            # A user's room is written into by the server alone, unless the application says otherwise.
            return self._policy.access == "open" and room[0] != "@"
        actions = identity.allowed.get(room)
        return True if actions is not None and actions.get(action, -FAR) > self._step.now else None

    def decided(self, asked: GrantAsked, input: Authorized) -> Session | None:
        """The application's word on what a message wants; returns the session that waits for it."""
        connection = self._step.connections.get(asked.conn)
        session = None if connection is None else connection.session
        if session is None or (identity := session.identity) is None:
            return None
        # What was answered before a revoke may be old: the message asks again.
        if asked.revision == identity.revision:
            granted = asked.action in input.actions and input.expires_in_s != 0
            identity.verdict = (asked.action, asked.room, granted, input.code)
            if not input.code:
                self._keep(session, identity, asked.room, input)
        return session

    @staticmethod
    def forget_verdict(session: Session) -> None:
        """The message that waited for the word was handled: the word is not for another one."""
        if session.identity is not None:
            session.identity.verdict = None

    def _keep(self, session: Session, identity: Identity, room: str, input: Authorized) -> None:
        """Keeps what was granted, for a bounded number of rooms."""
        until = FAR if input.expires_in_s is None else self._step.now + input.expires_in_s
        if not input.actions or until <= self._step.now:
            return
        allowed = identity.allowed
        actions = allowed.pop(room, {})
        allowed[room] = actions | dict.fromkeys(input.actions, until)
        if identity.kicked is not None and "join" in input.actions:
            identity.kicked.discard(room)
        if len(allowed) > 2 * self._step.config.rooms_max:
            inside = session.memberships or {}
            del allowed[next(name for name in allowed if name not in inside)]
        self.rearm(session)

    # ---- may it stay? -----------------------------------------------------------------------------

    def rearm(self, session: Session) -> None:
        """Sees to it that the session is looked at when something of its identity ends."""
        identity = session.identity
        assert identity is not None  # It has something that ends.
        when = min(identity.ends_at, identity.due_at if session.hello else FAR)
        allowed = identity.allowed
        for name, member in (session.memberships or {}).items():
            if not member.held and name in allowed and not identity.owns(name):
                when = min(when, allowed[name].get("join", FAR))
        identity.next_at = when
        self._timers.arm(session.connection, when)

    def due(self, session: Session) -> None:
        """Asks again for rooms whose grant is over; nothing of them is sent meanwhile."""
        identity = session.identity
        assert identity is not None  # It has something that ends.
        for name, member in tuple((session.memberships or {}).items()):
            actions = identity.allowed.get(name, {})
            if not (member.held or identity.owns(name)) and actions.get("join", FAR) <= self._step.now:
                del actions["join"]
                self._hold(member, EXPIRED)
        self.rearm(session)

    def _hold(self, member: Member, code: str) -> None:
        self._members.hold(member)
        self._ask_again(member, code)

    def _ask_again(self, member: Member, code: str, *, renewal: bool = False) -> None:
        identity = member.session.identity
        assert identity is not None  # Somebody is asked.
        asked = MembershipAsked(member, code, renewal, identity.revision)
        conn, room = member.connection.id, member.room.name
        self._step.out.append(Authorize(self._asks.put(asked), conn, "join", room))

    def stays(self, asked: MembershipAsked, input: Authorized) -> None:
        """The application's word on a member."""
        member = asked.member
        session, room, conn = member.session, member.room.name, member.connection
        identity = session.identity
        assert identity is not None  # Somebody was asked.
        current = session.memberships is not None and session.memberships.get(room) is member
        if current and asked.revision != identity.revision:
            self._ask_again(member, asked.code, renewal=asked.renewal)
            return
        # What is granted until a time that is over is not granted.
        if current and "join" in input.actions and not input.code and input.expires_in_s != 0:
            if member.held:
                self._members.release(member)
            self._keep(session, identity, room, input)
        elif current:
            self._kick(member, input.code or asked.code)
            if asked.renewal and identity.lost is not None:
                identity.lost.append(room)
        elif asked.revision == identity.revision and conn.session is session and not input.code:
            self._keep(session, identity, room, input)  # It left meanwhile; the word holds for what else it wants.
        if asked.renewal:
            identity.renewing -= 1
            self._tell_renewed(session, identity)

    def _kick(self, member: Member, code: str) -> None:
        session, room = member.session, member.room.name
        identity = session.identity
        if identity is not None:
            identity.allowed.pop(room, None)
            if session.unanswered or session.busy:  # What a guard holds may be published yet.
                identity.kicked = identity.kicked or set()
                identity.kicked.add(room)
        self._members.kick(member, code)

    def is_barred(self, session: Session, room: str) -> bool:
        """Whether an answer must tell nothing of a room, because the session was put out of it meanwhile."""
        identity = session.identity
        if identity is None or identity.kicked is None:
            return False
        barred = room in identity.kicked
        if not (session.unanswered or session.busy):
            identity.kicked = None
        return barred

    # ---- another proof ----------------------------------------------------------------------------

    def renew(self, session: Session, ref: str | None, told: Expiry) -> None:
        """Who it is was proved anew: what it was granted is asked again, then told by `$authed`."""
        identity = session.identity
        assert identity is not None  # It was proved.
        if identity.renewing:
            raise Refused("another $auth is not answered yet", RATE_LIMITED)
        granted, identity.allowed = identity.allowed, {}
        identity.revision += 1
        identity.renewal_ref, identity.lost, identity.told = ref, [], told
        for name, member in (session.memberships or {}).items():
            if name in granted and not (member.held or identity.owns(name)):
                identity.renewing += 1
                self._ask_again(member, EXPIRED, renewal=True)
        self._tell_renewed(session, identity)

    def _tell_renewed(self, session: Session, identity: Identity) -> None:
        if identity.renewing or identity.told is None:
            return
        payload = {"exp": identity.told[1], "lost": identity.lost}
        self._outbox.answer(session.connection, wire.answer("$authed", identity.renewal_ref, payload=payload))
        identity.renewal_ref = identity.lost = identity.told = None

    # ---- taken back ---------------------------------------------------------------------------------

    def revoke(self, input: Revoke) -> None:
        """Forgets what a user was granted. Raises: `BadRoom`."""
        if input.room is not None:
            check_name(input.room)
        for session in tuple(self._step.users.get(input.user, {}).values()):
            identity = session.identity
            assert identity is not None  # It is known by its user.
            identity.revision += 1
            identity.verdict = None
            if input.room is None:
                identity.allowed = {}
            else:
                identity.allowed.pop(input.room, None)
            memberships = session.memberships or {}
            own = user_room(input.user)
            members = [m for name, m in memberships.items() if name != own and input.room in (None, name)]
            if input.now and (members or input.room is None):
                self._cut(session)
                continue
            for member in members:
                if not self._policy.authorized:
                    self._kick(member, REVOKED)
                elif not member.held:
                    self._hold(member, REVOKED)
            self.rearm(session)

    def _cut(self, session: Session) -> None:
        """Ends a connection without sending what waits; where nothing does, the close frame still reaches it."""
        connection = session.connection
        if connection.state in SENDABLE:
            waits = connection.unsent > 0
            self._lifecycle.give_up(connection, CLOSE_DENIED, sent=DENIED, kept=REVOKED, abort=waits)
