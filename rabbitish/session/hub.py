"""What the sessions of a broker share, and what a session asks of its surroundings.

The server makes one hub a broker. Through `touched` it learns which sessions have something to send or have ended;
through `now_durable`, `set_alarm` and `clear_alarm` it tells all of them what concerns all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from rabbitish.config import Settings
from rabbitish.core.access import Access
from rabbitish.core.access.logins import Attempt
from rabbitish.core.access.roster import Roster
from rabbitish.core.broker import Broker
from rabbitish.core.exchange import Target
from rabbitish.core.policing import policies_by_vhost
from rabbitish.core.vhost import Vhost
from rabbitish.errors import ConnectionFailure, ReplyCode
from rabbitish.session.content import PropertyCache, WireMessage
from rabbitish.session.tally import Tally
from rabbitish.session.trace import Tracer

if TYPE_CHECKING:
    from rabbitish.session.channel import Channel
    from rabbitish.session.connection import Session

OnPublish: TypeAlias = "Callable[[Channel, WireMessage, list[Target]], list[Target]]"
"""Sees a publish that was routed and says where it goes instead. ChannelError: it is refused for that."""

Resource: TypeAlias = Literal["disk", "memory"]
"""What a broker can run short of, as RabbitMQ names it to those who are blocked."""


class Log(Protocol):
    """Where a session reports what happens to it."""

    def info(self, event: str, **fields: object) -> None: ...
    def warning(self, event: str, **fields: object) -> None: ...
    def exception(self, event: str, error: BaseException, **fields: object) -> None: ...
    def bind(self, **fields: object) -> Log: ...


class Peer(Protocol):
    """Where a connection comes from."""

    name: str  # "127.0.0.1:50412 -> 127.0.0.1:5672", RabbitMQ's name for a connection
    host: str  # its address without the port
    loopback: bool


class Audit(Protocol):
    """Where it is told who did what that has to do with access."""

    def __call__(self, event: str, **fields: object) -> None: ...


def _no_audit(event: str, **fields: object) -> None:
    pass


class Hub:
    """What the sessions of a broker share."""

    def __init__(self, broker: Broker, access: Access, settings: Settings) -> None:
        self.broker = broker
        self.access = access
        self.settings = settings
        self.properties = PropertyCache(settings.properties_cache_entries)
        self.tally = Tally()
        self.audit: Audit = _no_audit
        # Verifies what is slow elsewhere, and calls back with the answer; None: it is verified on the spot.
        self.verify: Callable[[Attempt, Callable[[bool, int], None]], None] | None = None
        self.rehash: Callable[[Attempt], None] | None = None  # a right password has a hash that is not ours
        self.touched: list[Session] = []  # sessions that the server must look at
        self.sessions: set[Session] = set()
        self.carried: dict[bytes, Session] = {}  # those that another node brings, by their marks
        self.partial_bytes = 0  # announced bodies that are still arriving
        self.durable = 0  # how far the journal is on disk
        self.safe = 0  # how far it is or needs not be, since what is behind that has been acknowledged: for confirms
        self.wanted = 0  # how far it must be safe for everybody to hear what they wait for
        self.wanted_on_disk = 0  # the same of those for whom it must be on disk
        self.unsafe: dict[Channel, None] = {}  # channels with publishes that wait for the disk
        self.alarms: frozenset[Resource] = frozenset()  # what has run short
        self.alarm = ""  # the same in words for those who are blocked ("low on memory"), or empty
        self.on_publish: OnPublish | None = None  # see `watch_publishes`
        self._held_for = ""
        self._tracers: dict[Vhost, Tracer] = {}

    def now_durable(self, lsn: int) -> None:
        """The journal is on disk up to `lsn`: confirm what waited for that."""
        self.durable = lsn
        self.now_safe(max(lsn, self.safe))

    def now_safe(self, lsn: int) -> None:
        """What was published up to `lsn` is on disk, or acknowledged by everybody it was for: confirm it."""
        self.safe = lsn
        unsafe, self.unsafe = self.unsafe, {}
        for channel in unsafe:
            channel.flush_confirms()

    def adopt(self, roster: Roster, now: int) -> None:
        """These are the users, permissions and virtual hosts from now on, for open connections too.

        Connections of users and to virtual hosts that are gone are closed, in RabbitMQ's words.
        """
        before, broker = self.access.roster, self.broker
        self.access.adopt(roster)
        for session in list(self.sessions):
            name = session.user.name
            if name and name not in roster.users:
                session.stop(_forced(f"user '{name}' is deleted"), now)
            elif name:
                session.user = roster.users[name]
        for name, vhost in list(broker.vhosts.items()):
            if name not in roster.vhosts:
                for session in list(self.sessions):
                    if session.state == "running" and session.vhost is vhost:
                        session.stop(_forced(f"vhost '{name}' is deleted"), now)
                broker.delete_vhost(name)
                self._tracers.pop(vhost, None)
        for name, record in roster.vhosts.items():
            vhost = broker.add_vhost(name)
            traced, vhost.record = vhost.record.tracing, record
            if traced is not record.tracing:
                self._heed_tracing(vhost)
            vhost.forget_routes()
        if (roster.policies, roster.operator_policies) != (before.policies, before.operator_policies):
            broker.govern(policies_by_vhost(roster), now)

    def tracer(self, vhost: Vhost) -> Tracer | None:
        """Who makes copies of what is published and delivered in a virtual host, if it is traced."""
        if not vhost.record.tracing:
            return None
        return self._tracers.setdefault(vhost, Tracer(vhost))

    def _heed_tracing(self, vhost: Vhost) -> None:
        if not vhost.record.tracing:
            self._tracers.pop(vhost, None)
        for session in self.sessions:
            if session.state == "running" and session.vhost is vhost:
                for channel in session.channels.values():
                    channel.heed_tracing()

    @property
    def cluster_name(self) -> str:
        """What the broker is called."""
        return self.access.roster.cluster_name or self.settings.cluster_name

    def set_alarm(self, resource: Resource) -> None:
        """Hold publishers back, since this has run short. Those who are held back already hear nothing of it."""
        self._alarms_are(self.alarms | {resource})

    def clear_alarm(self, resource: Resource) -> None:
        """There is enough of this again: let publishers go on, unless something else has run short."""
        self._alarms_are(self.alarms - {resource})

    def hold_publishers(self, reason: str) -> None:
        """Hold publishers back for this reason, whatever there is enough of; empty: let them go on."""
        self._held_for = reason
        self._alarms_are(self.alarms)

    def _alarms_are(self, alarms: frozenset[Resource]) -> None:
        self.alarms = alarms
        # RabbitMQ's text (blocked_by_message); its set of the two always comes out in this order.
        self.alarm = self._held_for or (f"low on {' & '.join(sorted(alarms))}" if alarms else "")
        if not self.alarm:
            for session in list(self.sessions):
                session.alarms_cleared()

    def watch_publishes(self, watcher: OnPublish | None) -> None:
        """Have `watcher` see every publish, or nobody; as long as somebody does, none takes the fast lane."""
        self.on_publish = watcher
        if watcher is not None:
            for session in self.sessions:
                for channel in session.channels.values():
                    channel.plain = False  # which the next publish that nobody watches makes good


def _forced(why: str) -> ConnectionFailure:
    return ConnectionFailure(ReplyCode.CONNECTION_FORCED, why)
