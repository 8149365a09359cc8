"""A node's place in a cluster, from its settings: what it is called, and where others find it.

What settings leave open depends on the machine, its name above all, so it is decided here and not in config.py.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import NamedTuple

from rabbitish.addresses import ClusterAddress, HostPort, parse_advertised, parse_cluster, parse_host_port, parse_name
from rabbitish.config import Settings

JOURNAL = "main"
"""The one journal that a cluster keeps, by its name in etcd."""


class ClusterPlace(NamedTuple):
    """What `--cluster` and the options beside it add up to."""

    cluster: ClusterAddress
    node: str
    listen: HostPort
    """Where other nodes reach this one; port 0 is any."""
    advertise: HostPort
    """Where they are told that they do; port 0: the port that is listened on in the end."""
    min_in_sync: int
    """As it is set; 0 leaves it to how many replicas there are."""
    ttl_s: int

    def advertised(self, port: int) -> tuple[str, int]:
        """Where other nodes are told to reach this one, which listens on that port."""
        return self.advertise.host, self.advertise.port or port


def cluster_place(settings: Settings, host_name: str | None = None) -> ClusterPlace:
    """The place of a node whose settings have a `cluster`, on a host of that name. SettingError: it needs another."""
    host_name = host_name or socket.gethostname()
    listen = parse_host_port(settings.cluster_listen, "cluster_listen")
    if settings.cluster_advertise:
        advertise = parse_advertised(settings.cluster_advertise, "cluster_advertise")
    else:
        advertise = HostPort(host_name if _is_wildcard(listen.host) else listen.host, 0)
    return ClusterPlace(
        parse_cluster(settings.cluster),
        parse_name(settings.node_name or host_name, "node_name"),
        listen,
        advertise,
        settings.cluster_min_in_sync,
        settings.cluster_ttl_s,
    )


def needed_in_sync(setting: int, replicas: int) -> int:
    """How many replicas must have a record before it is confirmed, of so many that keep the log."""
    if setting:
        return setting
    return replicas // 2 + 1 if replicas >= 3 else 1


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        return False
