"""How nodes, etcd and clients reach each other: on the loopback, through relays, or in network namespaces.

A wiring says where everybody listens and what they are told of each other, and has the network between them, which is
cut and healed. It is made before the processes and gone after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import trio

from ..etcd_server import free_ports
from .namespaces import Namespaces
from .relays import ETCD, Address, Network, Relay, owner_of


class Place(NamedTuple):
    """Of one node."""

    amqp: Address
    """Where clients reach it."""
    link: Address
    """Where it listens for other nodes."""
    advertised: Address
    """Where others are told to reach it."""
    etcd: list[Address]
    """Where it is told to reach etcd."""


class Wiring:
    """Everybody on the loopback, with nothing in between that could be cut."""

    etcd_host = "127.0.0.1"
    settings: tuple[str, ...] = ()
    """What nodes need in addition, as `key=value`."""

    def __init__(self, names: list[str]) -> None:
        ports = free_ports(4 * len(names))
        self._ports = {name: ports[4 * number : 4 * number + 4] for number, name in enumerate(names)}
        self.network = Network()

    def inside(self, _: str) -> AbstractContextManager[object]:
        """Around the start of a process: in this node's network, or in that of ETCD."""
        return nullcontext()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Around everything: this thread is where clients are, and nothing is left behind."""
        yield

    def place(self, name: str, etcd: list[Address]) -> Place:
        """Where a node is, given where etcd is."""
        amqp, link, _, _ = self._ports[name]
        return Place(("127.0.0.1", amqp), ("127.0.0.1", link), ("127.0.0.1", link), etcd)

    async def run(
        self, processes: Callable[[], dict[int, str]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Do what there is to do all the time; `processes`: names of nodes by their process ids."""
        task_status.started()

    async def up(self, name: str) -> None:
        """The node's process has been started."""

    def down(self, name: str) -> None:
        """It is gone."""


class Relayed(Wiring):
    """A relay before each node, and one before etcd for each node."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(names)
        self._links: dict[str, Relay] = {}
        self._relays: list[Relay] = []
        self._processes: Callable[[], dict[int, str]] = dict

    def _dialer(self, port: int, to: int) -> str | None:
        return owner_of(port, to, self._processes())

    def place(self, name: str, etcd: list[Address]) -> Place:
        """As above; the relays are made here."""
        assert len(etcd) == 1, "relays lead to one etcd"
        amqp, link, near_link, near_etcd = self._ports[name]
        self._links[name] = Relay(self.network, name, near_link, ("127.0.0.1", link), self._dialer)
        to_etcd = Relay(self.network, ETCD, near_etcd, etcd[0], lambda _, __: name)
        self._relays += [self._links[name], to_etcd]
        advertised, to_there = ("127.0.0.1", near_link), ("127.0.0.1", near_etcd)
        return Place(("127.0.0.1", amqp), ("127.0.0.1", link), advertised, [to_there])

    async def run(
        self, processes: Callable[[], dict[int, str]], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Relay."""
        self._processes = processes
        async with trio.open_nursery() as nursery:
            for relay in self._relays:
                await nursery.start(relay.run)
            task_status.started()

    async def up(self, name: str) -> None:
        """As above."""
        await self._links[name].up()

    def down(self, name: str) -> None:
        """As above."""
        self._links[name].down()


class Spaced(Wiring):
    """Each node and etcd in a network namespace of its own, clients in the one between them."""

    AMQP, LINK = 5672, 25672
    settings = ("loopback_users=",)  # nobody comes from there

    def __init__(self, names: list[str]) -> None:
        self._namespaces = self.network = Namespaces([*names, ETCD])
        self.etcd_host = self._namespaces.address(ETCD)

    def inside(self, name: str) -> AbstractContextManager[object]:
        """As above."""
        return self._namespaces.inside(name)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """As above."""
        with self._namespaces, self._namespaces.between():
            yield

    def place(self, name: str, etcd: list[Address]) -> Place:
        """As above."""
        host = self._namespaces.address(name)
        return Place((host, self.AMQP), (host, self.LINK), (host, self.LINK), etcd)


WIRINGS: dict[str, type[Wiring]] = {"loopback": Wiring, "relays": Relayed, "namespaces": Spaced}
"""By the name that a test or a command line gives."""
