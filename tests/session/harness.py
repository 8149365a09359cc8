"""A broker in memory, a clock that stands still until told otherwise, and clients that talk to it without sockets.

`World` does what server/ does: it settles, carries bytes from outboxes to clients, and calls when deadlines come. A
client (client.py) takes what arrives the moment the world settles, unless it has stopped reading (`reading = False`):
then `Outbox.sent` is never called.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from rabbitish.config import Settings
from rabbitish.core.access import EVERYTHING, Access
from rabbitish.core.access.records import VhostRecord
from rabbitish.core.access.roster import Roster
from rabbitish.core.broker import Broker
from rabbitish.core.message import Message
from rabbitish.core.queue import Queue
from rabbitish.core.sendings import Range, Sendings
from rabbitish.session.connection import Session
from rabbitish.session.hub import Hub
from tests.thorough import THOROUGH

from .client import Client

START = 1_700_000_000_000
_EXPLORE = int(os.environ.get("RABBITISH_EXPLORE", "0"))


def examples(count: int) -> hypothesis_settings:
    """So many examples or, unless RABBITISH_THOROUGH=1, a third of them, always the same.

    With RABBITISH_EXPLORE=n it is n times as many, and other ones in every run.
    """
    count = count if THOROUGH or _EXPLORE else count // 3
    return hypothesis_settings(
        max_examples=count * max(_EXPLORE, 1),
        derandomize=not _EXPLORE,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


class Record(NamedTuple):
    """One event in the log."""

    level: str
    event: str
    fields: dict[str, object]


class Log:
    """Keeps what sessions report."""

    def __init__(self, records: list[Record], **fields: object) -> None:
        self.records = records
        self._fields = fields

    def bind(self, **fields: object) -> Log:
        return Log(self.records, **{**self._fields, **fields})

    def info(self, event: str, **fields: object) -> None:
        self._keep("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._keep("warning", event, fields)

    def exception(self, event: str, error: BaseException, **fields: object) -> None:
        self._keep("exception", event, {**fields, "error": error})

    def _keep(self, level: str, event: str, fields: dict[str, object]) -> None:
        self.records.append(Record(level, event, {**self._fields, **fields}))


class Peer(NamedTuple):
    """Where a client says it comes from."""

    name: str
    loopback: bool
    host: str


class Journal:
    """Numbers changes like a journal, and keeps none."""

    def __init__(self) -> None:
        self.position = 0
        self.declared = 0
        self.oldest = 0
        self.sendings = Sendings()
        self.sends: list[tuple[int, bytes, int, Sequence[Range]]] = []  # with the position of each

    def published(self, queues: Sequence[Queue], messages: Sequence[Message], now: int, *, alike: bool = True) -> None:
        for message in messages:
            self.position += 1
            message.lsn = self.position

    def sent(self, session: bytes, channel: int, ranges: Sequence[Range]) -> None:
        self.position += 1
        self.sends.append((self.position, session, channel, tuple(ranges)))
        for first, last in ranges:
            self.sendings.add(session, channel, first, last)

    def _told(self, *change: object) -> None:
        self.position += 1

    def _declared(self, *change: object) -> None:
        self.position += 1
        self.declared = self.position

    vhost_added = vhost_removed = exchange_declared = exchange_deleted = queue_declared = queue_deleted = _declared
    queue_changed = bound = unbound = _declared
    removed = pages_removed = delivered = returned = _told


class World:
    """One broker and its clients. Keyword arguments are settings."""

    def __init__(self, **settings: object) -> None:
        self.now = START
        self.settings = Settings(**settings)  # type: ignore[arg-type]
        tokens = itertools.count(1)
        self.broker = Broker(token=lambda: f"{next(tokens):022d}", settle_budget=self.settings.settle_budget_messages)
        self.vhost = self.broker.add_vhost("/")
        self.access = Access(
            frozenset({"guest"}), key=b"secret", most_failures=self.settings.login_failures_max, cost=4
        )
        self.access.add_known_user("guest", "guest", frozenset({"administrator"}), "/")
        self.access.add_known_user("joe", "secret", frozenset(), "/")
        self.access.add_known_user("actor", "secret", frozenset({"impersonator"}), "/")
        self.hub = Hub(self.broker, self.access, self.settings)
        self.audited: list[dict[str, object]] = []
        self.hub.audit = self._audit
        self.records: list[Record] = []
        self.clients: dict[Session, Client] = {}
        self._settled = 0  # since all was looked through

    def _audit(self, event: str, **fields: object) -> None:
        self.audited.append({"event": event, **{key: value for key, value in fields.items() if value is not None}})

    # ---- clients

    def change(self, *changes: Callable[[Roster], None]) -> None:
        """Change users, permissions and virtual hosts, all at once."""
        draft = self.access.roster.draft()
        for make in changes:
            make(draft)
        self.hub.adopt(draft, self.now)
        self.settle()

    def add_vhost(self, name: str) -> None:
        """One more virtual host, in which guest may do everything."""
        self.change(
            lambda roster: roster.add_vhost(VhostRecord(name)),
            lambda roster: roster.set_permissions("guest", name, EVERYTHING),
        )

    def connect(self, *, loopback: bool = True, host: str = "127.0.0.1", certificate_name: str | None = None) -> Client:
        """A client that has said nothing yet; `certificate_name` is Session's peer_certificate_name."""
        peer = Peer(f"client {len(self.clients)}", loopback, host)
        log = Log(self.records, connection=peer.name)
        client = Client(self, Session(self.hub, peer, log, self.now, peer_certificate_name=certificate_name))
        self.clients[client.session] = client
        return client

    def client(self, *channels: int, **handshake: object) -> Client:
        """A client with an open connection and open channels (channel 1 when none is named)."""
        client = self.connect()
        client.handshake(**handshake)  # type: ignore[arg-type]
        for channel in channels or (1,):
            client.open(channel)
        return client

    def queue(self, name: str) -> Queue:
        """The queue of that name."""
        return self.vhost.queues[name]

    # ---- the journal

    def keep_journal(self) -> Journal:
        """From now on what must survive waits for `synced`."""
        journal = Journal()
        self.broker.record(journal)
        return journal

    def synced(self, up_to: int | None = None) -> None:
        """The journal is on disk, all of it or up to a number; as server/node.py tells it."""
        recorder = self.vhost.recorder
        assert recorder is not None
        self.hub.now_durable(recorder.position if up_to is None else up_to)
        for client in self.clients.values():
            client.collect()
        self.settle()

    def look_through(self) -> None:
        """Assert what must always hold, whenever this settles; where much is held less often, for that reads all."""
        self._settled += 1
        held = sum(queue.ready for vhost in self.broker.vhosts.values() for queue in vhost.queues.values())
        if self._settled > held // 4:
            self._settled = 0
            self.broker.check()

    # ---- time

    def settle(self) -> None:
        """Let the broker do all there is to do at this moment, and carry bytes both ways."""
        while True:
            self.broker.settle(self.now)
            self.look_through()
            touched, self.hub.touched = self.hub.touched, []
            for session in touched:
                session.listed = False
                self.clients[session].collect()
            fed = [client for client in self.clients.values() if client.feed()]
            if not (fed or self.broker.restless or self.hub.touched):
                return

    def advance(self, ms: int) -> None:
        """Let time pass, stopping at every deadline on the way."""
        end = self.now + ms
        self.settle()
        while (due := self.broker.deadlines.next_due()) is not None and due <= end:
            self.now = max(self.now, due)
            self.settle()
        self.now = end
        self.settle()

    # ---- what happened

    @property
    def exceptions(self) -> list[Record]:
        """Errors of ours."""
        return [record for record in self.records if record.level == "exception"]

    def logged(self, event: str) -> list[dict[str, object]]:
        """The fields of every such event in the log."""
        return [record.fields for record in self.records if record.event == event]
