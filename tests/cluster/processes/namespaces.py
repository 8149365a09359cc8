"""A network that can be cut in the kernel: each machine in a network namespace, joined by a router in another.

The namespaces have no names, only descriptors of this process: the kernel takes them away, and the links in them, with
the last process that uses them, whatever ends this one. The host's own namespace is not touched. One direction of one
pair is cut where the router drops its packets (a blackhole rule), so neither end is told anything: what is under way is
sent again by TCP, later and later, and a new connection hears nothing. A machine whose link is down sees that itself,
and nobody reaches it, clients neither.

Linux only, and the rights to administer networks: `refused` says whether and why it cannot be had here.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .relays import Network

_CLONE_NEWNET = 0x4000_0000
_HERE = "/proc/thread-self/ns/net"
_PATIENCE_SECONDS = 20


class Refused(Exception):
    """The kernel or `ip` does not let us."""


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise Refused(f"{name}: {os.strerror(ctypes.get_errno())}")


def _new() -> int:
    """A new namespace; the descriptor that holds it."""
    made: list[int | Refused] = []

    def make() -> None:  # in a thread that ends, since it is in the new one from then on
        try:
            _call("unshare", _CLONE_NEWNET)
            made.append(os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC))
        except Refused as refused:
            made.append(refused)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    (found,) = made
    if isinstance(found, Refused):
        raise found
    return found


@contextmanager
def _inside(namespace: int) -> Iterator[None]:
    """A block during which this thread is in a namespace: its sockets, and the processes that it starts, stay there."""
    before = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _call("setns", namespace, _CLONE_NEWNET)
        yield
        _call("setns", before, _CLONE_NEWNET)
    except BaseException:
        _call("setns", before, _CLONE_NEWNET)
        raise
    finally:
        os.close(before)


def _ip(namespace: int, *commands: str) -> None:
    """What `ip` is to do there."""
    with _inside(namespace):
        text = "".join(f"{command}\n" for command in commands)
        done = subprocess.run(
            ["ip", "-batch", "-"], input=text, text=True, capture_output=True, timeout=_PATIENCE_SECONDS, check=False
        )
    if done.returncode:
        raise Refused(f"ip: {done.stderr.strip()}")


class Namespaces(Network):
    """Machines by name, from when it is entered until it is left; what is cut is cut between these."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._router = -1
        self._machines: dict[str, int] = {}
        self._dropped: set[tuple[str, str]] = set()
        self._unplugged: set[str] = set()

    def address(self, name: str) -> str:
        """Of a machine."""
        return f"10.77.{self._numbers[name]}.2"

    def __enter__(self) -> Namespaces:
        """Make them. Refused."""
        try:
            self._router = _new()
            for name in self._numbers:
                self._machines[name] = _new()
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self) -> None:
        _ip(self._router, "link set lo up")
        with _inside(self._router):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="ascii")
        for name, number in self._numbers.items():
            near, far = f"10.77.{number}.1", self._machines[name]
            _ip(
                self._router,
                f"link add dev to-{name} type veth peer name eth0 netns /proc/{os.getpid()}/fd/{far}",
                f"addr add {near}/24 dev to-{name}",
                f"link set to-{name} up",
            )
            _ip(far, "link set lo up", f"addr add {self.address(name)}/24 dev eth0")
            self._plug(name)

    def __exit__(self, *_: object) -> None:
        """Hold them no longer."""
        for namespace in (self._router, *self._machines.values()):
            if namespace >= 0:
                os.close(namespace)
        self._router = -1
        self._machines.clear()

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """A block in which this thread is a machine; nothing may be awaited in it."""
        with _inside(self._machines[name]):
            yield

    @contextmanager
    def between(self) -> Iterator[None]:
        """A block in which this thread is at the router: it reaches all machines, whatever is cut between them."""
        with _inside(self._router):
            yield

    def _change(self) -> None:
        """Have the router drop what is cut, and nothing else."""
        wanted = {pair for pair in self.cuts if pair[0] in self._numbers and pair[1] in self._numbers}
        rules = [("add", pair) for pair in sorted(wanted - self._dropped)]
        rules += [("del", pair) for pair in sorted(self._dropped - wanted)]
        if rules:
            _ip(
                self._router,
                *(f"rule {verb} pref 100 iif to-{a} to {self.address(b)} blackhole" for verb, (a, b) in rules),
            )
        self._dropped = wanted

    def heal(self) -> None:
        """Everything passes again, and all links are up."""
        super().heal()
        self.plug(*self._unplugged)

    def unplug(self, *names: str) -> None:
        """Take machines' links down, as they see it themselves."""
        for name in names:
            _ip(self._machines[name], "link set eth0 down")
            self._unplugged.add(name)

    def plug(self, *names: str) -> None:
        """Take them up again."""
        for name in names:
            self._plug(name)
            self._unplugged.discard(name)

    def _plug(self, name: str) -> None:
        gateway = f"10.77.{self._numbers[name]}.1"
        _ip(self._machines[name], "link set eth0 up", f"route add default via {gateway}")


def find_ip() -> str | None:
    """The program, if there is one."""
    return shutil.which("ip")


@cache
def refused() -> str | None:
    """Why there can be no such network here; None: there can."""
    if find_ip() is None:
        return "ip is not installed (apt install iproute2)"
    try:
        with Namespaces(["a", "b"]) as network:
            network.cut("a", "b")
    except (Refused, OSError) as error:
        return f"no network namespaces here: {error}"
    return None
