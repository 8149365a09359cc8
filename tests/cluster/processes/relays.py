"""A network that can be cut: relays in this process, through which nodes reach each other and etcd.

A node advertises its relay's address instead of its own. Who dialled is found by the process that has the other end of
the connection, so each direction of each pair of nodes is cut by itself. A cut is silent: what was sent is held back,
in order, and arrives when it is healed, as with packets that are lost and sent again; so is the end of a connection.
A connection through a cut is made, and then nothing comes.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import trio

_READ_BYTES = 256 * 1024
_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
ETCD = "etcd"
Address = tuple[str, int]


class Network:
    """Which directions are cut or slow. Names are nodes', or ETCD."""

    def __init__(self) -> None:
        self.cuts: set[tuple[str, str]] = set()
        self.delays: dict[tuple[str, str], float] = {}
        """Seconds, by direction."""
        self.passed: Counter[tuple[str, str]] = Counter()
        """Bytes, by direction."""
        self._changed = trio.Event()

    def cut(self, sources: Iterable[str], targets: Iterable[str], *, both_ways: bool = True) -> None:
        """Nothing passes from one side to the other."""
        targets = list(targets)
        for source in sources:
            for target in targets:
                self.cuts.add((source, target))
                if both_ways:
                    self.cuts.add((target, source))
        self._change()

    def isolate(self, node: str, others: Iterable[str]) -> None:
        """A node is alone: cut from the others and from etcd."""
        self.cut([node], [*others, ETCD])

    def heal(self) -> None:
        """Everything passes again, and at once."""
        self.cuts.clear()
        self.delays.clear()
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def pass_(self, source: str, target: str) -> None:
        """Wait as long as something takes from one to the other."""
        while (source, target) in self.cuts:
            await self._changed.wait()
        if delay := self.delays.get((source, target)):
            await trio.sleep(delay)


class Relay:
    """Where `target` is reached. `dialer` tells by a peer's port and ours who it is."""

    def __init__(
        self, network: Network, name: str, port: int, target: Address, dialer: Callable[[int, int], str | None]
    ) -> None:
        self.name = name
        self.port = port
        self._network = network
        self._target = target
        self._dialer = dialer
        self._nursery: trio.Nursery
        self._listening: trio.CancelScope | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pass on what comes, for ever."""
        async with trio.open_nursery() as self._nursery:
            await self.up()
            task_status.started()
            await trio.sleep_forever()

    async def up(self) -> None:
        """Listen: the process behind it runs."""
        if self._listening is None:
            self._listening = scope = trio.CancelScope()
            listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            self._nursery.start_soon(self._serve, listeners, scope)

    def down(self) -> None:
        """Refuse: the process behind it is gone."""
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None

    async def _serve(self, listeners: list[trio.SocketListener], scope: trio.CancelScope) -> None:
        with scope:
            await trio.serve_listeners(self._relay, listeners, handler_nursery=self._nursery)

    async def _relay(self, near: trio.SocketStream) -> None:
        async with near:
            peer = near.socket.getpeername()[1]
            source = self._dialer(peer, self.port)
            if source is None:
                return
            await self._network.pass_(source, self.name)
            await self._network.pass_(self.name, source)  # the answer to the first packet
            try:
                far = await trio.open_tcp_stream(*self._target)
            except OSError:
                near.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # as good as refused
                return
            async with far, trio.open_nursery() as nursery:
                for ends in ((source, self.name, near, far), (self.name, source, far, near)):
                    nursery.start_soon(partial(self._pump, *ends, over=nursery.cancel_scope.cancel))

    async def _pump(
        self,
        source: str,
        target: str,
        reader: trio.SocketStream,
        writer: trio.SocketStream,
        *,
        over: Callable[[], None],
    ) -> None:
        while True:
            data = b""
            with suppress(*_BROKEN):
                data = bytes(await reader.receive_some(_READ_BYTES))
            await self._network.pass_(source, target)
            try:
                if not data:
                    await writer.send_eof()
                    over()  # none of ours goes on talking on a connection half of which has ended
                    return
                await writer.send_all(data)
                self._network.passed[(source, target)] += len(data)
            except _BROKEN:
                over()
                return


def owner_of(port: int, to: int, processes: dict[int, str]) -> str | None:
    """Which of the processes, names by id, has the connection on the loopback from one port to another, if any."""
    inode = _inode(port, to)
    for pid, name in processes.items():
        with suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(link.readlink()) == f"socket:[{inode}]":
                        return name
    return None


def _inode(port: int, to: int) -> str:
    wanted = (f"{port:04X}", f"{to:04X}")
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if (fields[1][-4:], fields[2][-4:]) == wanted:
            return fields[9]
    return ""
