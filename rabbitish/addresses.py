"""Addresses as settings write them: where to listen, where etcd is and which cluster in it, where nodes reach a node.

Every parser here takes the text of one setting and raises `SettingError`, which names that setting and says what would
be right. Nothing here resolves a name or knows the machine.
"""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_PORT = 5672
DEFAULT_PORTS = {"amqp": DEFAULT_PORT, "amqps": 5671}
ETCD_PORT = 2379
DEFAULT_CLUSTER = "rabbitish"

_HOST = r"(?:\[(?P<v6>[\w:.%]+)\]|(?P<host>[^\s/:@\[\],]+))(?::(?P<port>\d+))?"
_LISTEN_URL = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_HOST}/?")
_HOST_PORT = re.compile(_HOST)
_CLUSTER_URL = re.compile(r"etcd://(?P<members>[^/]*)(?:/(?P<name>.*))?")
# They are parts of keys in etcd and of replicas' names, and stand in logs.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")
_LONGEST_NAME = 128


class SettingError(ValueError):
    """A value that cannot be used. `keys` names the settings at fault, the main one first."""

    def __init__(self, problem: str, *keys: str) -> None:
        super().__init__(f"{keys[0]} {problem}")
        self.problem = problem
        self.keys = keys


class Address(NamedTuple):
    """Where to listen; `scheme` is "amqp", or "amqps" for TLS.

    "localhost" means every loopback address of the machine; port 0 any free port.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{HostPort(self.host, self.port)}"


class HostPort(NamedTuple):
    """A host, by name or address, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ClusterAddress(NamedTuple):
    """Which cluster: the members of the etcd that it is kept in, in the order they are tried, and its name there."""

    members: tuple[HostPort, ...]
    name: str

    def __str__(self) -> str:
        return f"etcd://{','.join(map(str, self.members))}/{self.name}"


def parse_address(url: str) -> Address:
    """Read "amqp[s]://host[:port]", an IPv6 host in brackets. Raises `SettingError` for `listen`."""
    match = _LISTEN_URL.fullmatch(url)
    if match is None:
        raise SettingError(f"must be like amqp://127.0.0.1:5672 or amqp://[::1]:5672, not {url!r}", "listen")
    if match["scheme"] not in DEFAULT_PORTS:
        raise SettingError(f"must begin with amqp:// or amqps://, not {url!r}", "listen")
    port = int(match["port"] or DEFAULT_PORTS[match["scheme"]])
    if port > 65_535:
        raise SettingError(f"has port {port}, and the highest port is 65535: {url!r}", "listen")
    return Address(match["scheme"], match["v6"] or match["host"], port)


def parse_cluster(url: str) -> ClusterAddress:
    """Read "etcd://host[:port][,host[:port]...][/name]". Raises `SettingError` for `cluster`."""
    match = _CLUSTER_URL.fullmatch(url)
    if match is None:
        raise SettingError(f"must be like etcd://127.0.0.1:2379/rabbitish, not {url!r}", "cluster")
    members = tuple(_host_port(text, ETCD_PORT, url, "cluster", least=1) for text in match["members"].split(","))
    return ClusterAddress(members, parse_name(match["name"] or DEFAULT_CLUSTER, "cluster"))


def parse_host_port(text: str, key: str) -> HostPort:
    """Read "host:port", an IPv6 host in brackets; port 0 is any. Raises `SettingError` for `key`."""
    return _host_port(text, None, text, key)


def parse_advertised(text: str, key: str) -> HostPort:
    """Read "host[:port]"; without a port it is 0, which stands for the one that is listened on."""
    return _host_port(text, 0, text, key)


def parse_name(name: str, key: str) -> str:
    """A name of a node or a cluster. Raises `SettingError` for `key`."""
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise SettingError(
            f"must name it in up to {_LONGEST_NAME} ASCII letters, digits, '_', '.', '@' and '-', not {name!r}", key
        )
    return name


def _host_port(text: str, default: int | None, whole: str, key: str, *, least: int = 0) -> HostPort:
    match = _HOST_PORT.fullmatch(text.strip())
    if match is None or (match["port"] is None and default is None):
        form = "HOST:PORT" if default is None else "HOST[:PORT]"
        raise SettingError(f"must have {form}, an IPv6 host in brackets, and has {text!r}: {whole!r}", key)
    port = int(match["port"] or default or 0)
    if match["port"] and not least <= port <= 65_535:
        raise SettingError(f"has port {port}, and ports are {least} to 65535: {whole!r}", key)
    return HostPort(match["v6"] or match["host"], port)
