"""What a cluster keeps in etcd, and a replica's `Coordinator` on it: states by compare-and-swap, nodes on leases.

    /rabbitish/<cluster>/secret          the key of the links between nodes
    /rabbitish/<cluster>/nodes/<node>    where it listens, on its lease
    /rabbitish/<cluster>/journals/<g>    see state.py

Nothing here decides anything. What etcd did not answer is passed on as unknown, and asked again by who wanted it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import trio

from rabbitish.cluster.etcd import Etcd, Range, Unknown, get, modified_at, not_there, put
from rabbitish.cluster.protocol.replica import Replica
from rabbitish.cluster.protocol.state import GroupState, Outcome, Proposal, View, decode_state, node_of, storage_of

_AGAIN_SECONDS = 0.2
_SILENCE_MS = 5_000
_WENT_BACK = (
    "nothing that it says is heeded until it is past that, for which nobody should wait; if it was restored from "
    "a backup: stop all nodes, the leader last, use 'rabbitish cluster force-leader' where it led, and start it first"
)


def now_ms() -> int:
    """The clock of everything here: trio's, in milliseconds."""
    return int(trio.current_time() * 1_000)


class Names:
    """The keys of a cluster."""

    def __init__(self, cluster: str) -> None:
        self.prefix = f"/rabbitish/{cluster}/".encode()
        self.secret = self.prefix + b"secret"
        self.nodes = self.prefix + b"nodes/"

    def node(self, node: str) -> bytes:
        """Of a node."""
        return self.nodes + node.encode()

    def journal(self, journal: str) -> bytes:
        """Of a journal's state."""
        return self.prefix + b"journals/" + journal.encode()


async def shared_secret(etcd: Etcd, names: Names, new: bytes) -> bytes:
    """The cluster's secret: `new`, unless there is one already. Unknown: ask again."""
    await etcd.txn([not_there(names.secret)], [put(names.secret, new)])
    (found,) = (await etcd.range(names.secret)).kvs
    return found.value


async def found_journal(etcd: Etcd, names: Names, journal: str, replicas: tuple[str, ...]) -> None:
    """Have a journal kept by these replicas, all of them empty and so in sync, unless there is one already."""
    state = GroupState(0, "", tuple(sorted(replicas)), replicas, "founded")
    key = names.journal(journal)
    await etcd.txn([not_there(key)], [put(key, state.encode())])


class NotThere(Exception):
    """etcd does not know the journal that we have a part of; the message says what that may mean, for people."""


async def join_journal(etcd: Etcd, names: Names, journal: str, replica: str, *, empty: bool, epoch: int = 0) -> None:
    """Be one of those that keep a journal, or the first; whether it is in sync is for its leader to see.

    One whose node is named already is not entered: the leader puts it in the place of that node's last one.
    `epoch` is the highest that our log knows of. NotThere: there is no journal, though ours is not empty, or it is not
    the one that we have a part of, or we are there under another node's name. Unknown: ask again.
    """
    key = names.journal(journal)
    while True:
        found = await etcd.range(key)
        if not found.kvs:
            if not empty:
                raise NotThere(
                    f"etcd knows nothing of {key.decode()}, of which the data directory has a part: this is another "
                    "etcd or cluster than before, or it has lost what it knew ('rabbitish cluster force-leader')"
                )
            await found_journal(etcd, names, journal, (replica,))
            continue
        state = decode_state(found.kvs[0].value)
        if state.epoch < epoch:  # whoever knows of an epoch has it from there
            raise NotThere(
                f"{key.decode()} in etcd is in epoch {state.epoch}, and the data directory has seen epoch {epoch}: "
                "this is another etcd or cluster than before, or it has lost what it knew"
            )
        named = [x for x in state.replicas if storage_of(x) == storage_of(replica) and x != replica]
        if named:
            raise NotThere(
                f"the data directory is that of node {node_of(named[0])}: start it under that name, "
                f"or have it forgotten first ('rabbitish cluster forget {node_of(named[0])}')"
            )
        if node_of(replica) in map(node_of, state.replicas):
            return
        joined = state._replace(replicas=(*state.replicas, replica), nonce=f"{replica}/joins")
        if (await etcd.txn([modified_at(key, found.kvs[0].modified)], [put(key, joined.encode())])).succeeded:
            return


def view_in(found: Range, names: Names, journal: str) -> tuple[View | None, dict[str, tuple[str, int]]]:
    """What was read, as a replica sees it, and where nodes listen; None: there is no journal, or its state is none."""
    state, live = None, dict[str, tuple[str, int]]()
    for kv in found.kvs:
        with suppress(ValueError, LookupError, TypeError):
            if kv.key == names.journal(journal):
                state = (decode_state(kv.value), kv.modified)
            elif kv.key.startswith(names.nodes):
                host, port = json.loads(kv.value)["address"]
                live[kv.key.removeprefix(names.nodes).decode()] = (str(host), int(port))
    return (None if state is None else View(state[0], state[1], frozenset(live), found.revision)), live


async def change_state(
    etcd: Etcd, names: Names, journal: str, decide: Callable[[View | None], GroupState], nonce: str
) -> GroupState:
    """Change a journal's state to what `decide` makes of it, anew whenever somebody else was faster.

    What `decide` raises ends it. Unknown: it may have happened, or may yet.
    """
    key = names.journal(journal)
    while True:
        read = await etcd.txn([], [get(key), get(names.nodes, prefix=True)])
        view, _ = view_in(Range(read.revision, [kv for kvs in read.ranges for kv in kvs]), names, journal)
        state = decide(view)._replace(nonce=nonce)
        before = read.ranges[0][0].modified if read.ranges[0] else 0
        if (await etcd.txn([modified_at(key, before)], [put(key, state.encode())])).succeeded:
            return state


def storage_in(value: bytes) -> str | None:
    """The storage of which a node's key says that it is the node's; None: it says none."""
    try:
        return str(json.loads(value)["storage"])
    except (ValueError, LookupError, TypeError):  # whoever wrote that
        return None


class EtcdCoordinator:
    """See Coordinator. `replica` is whom it answers; `viewed` is told when that has heard of a view."""

    def __init__(
        self,
        etcd: Etcd,
        names: Names,
        journal: str,
        nursery: trio.Nursery,
        viewed: Callable[[], None] = lambda: None,
    ) -> None:
        self._etcd = etcd
        self._names = names
        self.journal = journal
        self._key = names.journal(journal)
        self._nursery = nursery
        self._viewed = viewed
        self._lease = 0
        self._keeping = trio.CancelScope()
        self._went_back = False
        self._answered_at = now_ms()
        self.trouble = ""
        """Why etcd has not answered for a while, if it has not."""
        self.replica: Replica
        self.addresses: dict[str, tuple[str, int]] = {}
        """Where nodes listen."""

    def swap(self, proposal: Proposal) -> None:
        """See Coordinator."""
        self._nursery.start_soon(self._swap, proposal)

    async def _swap(self, proposal: Proposal) -> None:
        compare = [modified_at(self._key, proposal.revision)]
        if proposal.absent is not None:
            compare.append(not_there(self._names.node(proposal.absent)))
        outcome, revision = Outcome.UNKNOWN, 0
        with suppress(Unknown):
            done = await self._etcd.txn(compare, [put(self._key, proposal.state.encode())])
            outcome, revision = (Outcome.DONE if done.succeeded else Outcome.CONFLICT), done.revision
        self.replica.swapped(proposal, outcome, revision, now_ms())

    def read(self) -> None:
        """See Coordinator."""
        self._nursery.start_soon(self._read)

    async def _read(self) -> None:
        view = None
        with suppress(Unknown):
            read = await self._etcd.txn([], [get(self._key), get(self._names.nodes, prefix=True)])
            view = self._view(Range(read.revision, [kv for kvs in read.ranges for kv in kvs]))
        self.replica.was_read(view, now_ms())
        self._viewed()

    async def follow(self, anew_seconds: float) -> None:
        """Tell the replica of every change, for ever; silence of so many seconds is not believed."""
        async with aclosing(self._etcd.follow(self._names.prefix, anew_seconds=anew_seconds)) as states:
            async for found in states:
                if (view := self._view(found)) is not None:
                    self.replica.observed(view, now_ms())
                    self._viewed()

    def _view(self, found: Range) -> View | None:
        view, live = view_in(found, self._names, self.journal)
        if view is not None:
            self.addresses.update(live)  # a node without a lease may still be there
        return view

    async def keep_lease(self, node: str, address: tuple[str, int], ttl_seconds: int, storage: str = "") -> None:
        """Be a node that lives, until `end_lease`; what the lease says goes to the replica."""
        key, value = self._names.node(node), json.dumps({"address": address, "storage": storage}).encode()
        with self._keeping:
            while True:
                try:
                    self._lease = await self._etcd.grant(ttl_seconds)
                    known = self._known
                    self._look_back(known, (await self._etcd.txn([], [put(key, value, self._lease)])).revision)
                    await self._renew(self._lease, ttl_seconds, lambda: self._be_seen(key, value, storage))
                except Unknown as unknown:
                    self._unanswered(unknown)
                    await trio.sleep(_AGAIN_SECONDS)

    def _answered(self) -> None:
        self._answered_at = now_ms()
        if self.trouble:
            self.trouble = ""
            self.replica.owner.note("etcd_answers_again")

    def _unanswered(self, unknown: Unknown) -> None:
        """Say it once when etcd is silent for longer than one of its members takes to be replaced."""
        silent = now_ms() - self._answered_at
        if silent > _SILENCE_MS:
            if not self.trouble:
                self.replica.owner.note("etcd_is_silent", reason=str(unknown))
            self.trouble = f"has not answered since {silent // 1000} s: {unknown}"

    async def end_lease(self) -> None:
        """The node stops, and nobody needs to wait until its lease ends by itself."""
        self._keeping.cancel()  # or it would take the end for a loss, and ask for another
        with suppress(Unknown):
            await self._etcd.revoke(self._lease)

    async def _be_seen(self, key: bytes, value: bytes, storage: str) -> None:
        """Have our key hang on our lease: a put that was not answered may have landed late, under one that ends.

        A key that another node has put is left to it; once that is gone ours is missing.
        """
        known = self._known
        read = await self._etcd.range(key)
        self._look_back(known, read.revision)
        before = 0
        for found in read.kvs:
            before = found.modified
            if found.lease == self._lease or storage_in(found.value) not in (None, storage):
                return
        await self._etcd.txn([modified_at(key, before)], [put(key, value, self._lease)])

    @property
    def _known(self) -> int:
        """The newest revision that the replica heeds."""
        return 0 if self.replica.view is None else self.replica.view.at

    def _look_back(self, known: int, revision: int) -> None:
        """Say it once if etcd answers with an older revision than was known when it was asked.

        A view that comes late proves nothing; an answer of a majority to what was asked afterwards does.
        """
        if revision >= known:
            self._went_back = False
        elif not self._went_back:
            self._went_back = True
            self.replica.owner.note("etcd_went_back", known=known, is_at=revision, way_out=_WENT_BACK)

    async def _renew(self, lease: int, ttl_seconds: int, be_seen: Callable[[], Awaitable[None]]) -> None:
        """Until it is gone; while etcd does not answer, more often."""
        pause = ttl_seconds / 3
        while True:
            asked = now_ms()
            try:
                left = await self._etcd.keep_alive(lease)
                if not left:
                    return
                self.replica.leased(asked + left * 1_000)
                await be_seen()
                self._answered()
                pause = ttl_seconds / 3
            except Unknown as unknown:
                self._unanswered(unknown)
                pause = _AGAIN_SECONDS
            await trio.sleep(pause)
