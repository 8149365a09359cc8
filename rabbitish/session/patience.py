"""How long a session waits for its peer: for the handshake, for a sign of life, for its agreement to a close.

One moment is pending at a time, in the broker's deadlines. While we do not read we cannot hear, so a peer that is held
back or kept waiting is not given up for its silence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rabbitish.wire.frames import HEARTBEAT

if TYPE_CHECKING:
    from rabbitish.session.connection import Session


class Patience:
    """The time limits of one session; see `core.deadlines.Due`."""

    __slots__ = ("_deadlines", "_handshake_ends", "_hang_up_at", "_session", "due_at")

    def __init__(self, session: Session, now: int) -> None:
        self._session: Session | None = session  # None when it is over: the two would hold each other in memory
        self._deadlines = session.broker.deadlines
        self.due_at: int | None = None
        self._hang_up_at: int | None = None
        self._handshake_ends = now + session.settings.handshake_timeout_ms
        self._deadlines.ask(self, self._handshake_ends)

    def begin_heartbeats(self, now: int) -> None:
        """The handshake is over."""
        self._deadlines.forget(self)
        if self._session is not None and self._session.heartbeat_ms:
            self._deadlines.ask(self, now + self._session.heartbeat_ms // 2)

    def hang_up(self, at: int) -> None:
        """Whatever happens, hang up at this moment."""
        self._deadlines.forget(self)
        self._hang_up_at = at
        self._deadlines.ask(self, at)

    def end(self) -> None:
        """Nothing is waited for any more."""
        self._deadlines.forget(self)
        self._session = None

    def due(self, now: int) -> None:
        """Hang up where it is time; send a heartbeat on an idle line; give up a peer that missed two."""
        session = self._session
        if session is None:
            return
        session.now = now
        if self._hang_up_at is not None:
            if now >= self._hang_up_at:
                session.end("gave up waiting")
            else:
                self._deadlines.ask(self, self._hang_up_at)
        elif session.state == "running":
            self._heartbeat(session, now)
        elif now >= self._handshake_ends:
            session.log.warning("handshake took too long", state=session.state)
            session.end("handshake took too long")
        else:
            self._deadlines.ask(self, self._handshake_ends)

    def _heartbeat(self, session: Session, now: int) -> None:
        interval = session.heartbeat_ms
        if not interval:
            return
        if now - session.heard > 2 * interval and session.reading and not (session.paused or session.busy):
            session.log.warning("missed heartbeats from client", interval_ms=interval)
            session.end("missed heartbeats")
            return
        outbox = session.outbox
        if now - outbox.last_sent >= interval // 2 and not outbox.size:
            outbox.write(HEARTBEAT)
        self._deadlines.ask(self, now + interval // 2)

    def put_off(self, ms: int) -> None:
        """The clock was moved on by so much, which the peer knows nothing of: what has a time limit has it later.

        It is to be asked for `due` again, at any moment from now on.
        """
        if self._session is not None:
            self._session.heard += ms
            self._session.outbox.last_sent += ms
        self._handshake_ends += ms
        if self._hang_up_at is not None:
            self._hang_up_at += ms
        self._deadlines.forget(self)
