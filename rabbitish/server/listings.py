"""What there is in a running broker, as plain lists and dicts: queues, exchanges, bindings, connections and the rest.

Keys are rabbitmqctl's. Nothing here changes anything.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rabbitish import __version__
from rabbitish.cluster.protocol.state import GroupState, node_of
from rabbitish.core.exchange import Exchange
from rabbitish.core.policing import Governing
from rabbitish.session.connection import Session

if TYPE_CHECKING:
    from rabbitish.config import Settings
    from rabbitish.server.node import Node
    from rabbitish.server.secured import Secured

Row = dict[str, object]


def queues(node: Node, vhost: str) -> list[Row]:
    """The queues of a virtual host."""
    return [
        {
            "name": queue.name,
            "durable": queue.durable,
            "auto_delete": queue.auto_delete,
            "exclusive": queue.owner is not None,
            "arguments": queue.arguments,
            "messages_ready": queue.ready,
            "messages_unacknowledged": queue.unacked,
            "messages": queue.ready + queue.unacked,
            "message_bytes": queue.bytes + queue.unacked_bytes,
            "consumers": len(queue.consumers),
            "state": "running",
            "type": queue.options.queue_type,
            **_governing(queue.governing),
        }
        for queue in node.broker.vhosts[vhost].queues.values()
    ]


def with_members(rows: list[Row], state: GroupState) -> list[Row]:
    """Queues, and the nodes that have them: what is not durable, or exclusive, ends with the leader."""
    leader = node_of(state.leader)
    members, in_sync = [node_of(each) for each in state.replicas], [node_of(each) for each in state.isr]
    for row in rows:
        kept = row["durable"] and not row["exclusive"]
        row |= {
            "leader": leader,
            "members": members if kept else [leader],
            "in_sync": in_sync if kept else [leader],
        }
    return rows


def exchanges(node: Node, vhost: str) -> list[Row]:
    """The exchanges of a virtual host."""
    return [
        {
            "name": exchange.name,
            "type": exchange.type,
            "durable": exchange.durable,
            "auto_delete": exchange.auto_delete,
            "internal": exchange.internal,
            "arguments": exchange.arguments,
            **_governing(exchange.governing),
        }
        for exchange in node.broker.vhosts[vhost].exchanges.values()
    ]


def _governing(governing: Governing) -> Row:
    policy, operator = governing
    return {
        "policy": policy.name if policy is not None else "",
        "operator_policy": operator.name if operator is not None else "",
        "effective_policy_definition": dict(governing.definition),
    }


def bindings(node: Node, vhost: str) -> list[Row]:
    """The bindings of a virtual host, those of the default exchange included."""
    here = node.broker.vhosts[vhost]
    rows = [_binding("", "queue", name, name, {}) for name in here.queues]
    for exchange in here.exchanges.values():
        for binding in exchange.bindings():
            to = binding.destination
            kind = "exchange" if isinstance(to, Exchange) else "queue"
            rows.append(_binding(exchange.name, kind, to.name, binding.routing_key, binding.arguments))
    return rows


def _binding(source: str, kind: str, destination: str, routing_key: str, arguments: object) -> Row:
    return {
        "source_name": source,
        "source_kind": "exchange",
        "destination_name": destination,
        "destination_kind": kind,
        "routing_key": routing_key,
        "arguments": arguments,
    }


def _sessions(node: Node) -> list[Session]:
    return list(node.links)


def connections(node: Node) -> list[Row]:
    """All connections, those that are still shaking hands too."""
    return [
        {
            "name": session.peer.name,
            "user": session.user.name,
            "vhost": session.vhost.name if session.state == "running" else "",
            "peer_host": session.peer.host,
            "peer_port": getattr(session.peer, "port", None),
            "state": "blocked" if session.blocked else session.state,
            "channels": len(session.channels),
            "auth_mechanism": session.mechanism,
            "channel_max": session.channel_max,
            "frame_max": session.frame_max,
            "timeout": session.heartbeat_ms // 1000,
            "connected_at": session.connected_at,
            "client_properties": session.client_properties,
            "connection_name": session.client_properties.get("connection_name", ""),
            **_secured(getattr(session.peer, "secured", None)),
        }
        for session in _sessions(node)
    ]


def _secured(secured: Secured | None) -> Row:
    return {
        "ssl": secured is not None,
        "ssl_protocol": secured.version.lower() if secured is not None else "",
        "ssl_cipher": secured.cipher if secured is not None else "",
        "peer_cert_subject": secured.subject if secured is not None else "",
        "peer_cert_issuer": secured.issuer if secured is not None else "",
        "peer_cert_validity": secured.validity if secured is not None else "",
    }


def channels(node: Node) -> list[Row]:
    """All channels."""
    return [
        {
            "name": f"{session.peer.name} ({channel.number})",
            "connection": session.peer.name,
            "number": channel.number,
            "user": session.user.name,
            "vhost": session.vhost.name,
            "transactional": channel.transaction is not None,
            "confirm": channel.confirms is not None,
            "consumer_count": len(channel.consumers),
            "messages_unacknowledged": sum(run.count for run in channel.unacked),
            "prefetch_count": channel.consumer_prefetch,
            "global_prefetch_count": channel.global_prefetch,
        }
        for session in _sessions(node)
        for channel in session.channels.values()
    ]


def consumers(node: Node, vhost: str) -> list[Row]:
    """The consumers of a virtual host."""
    return [
        {
            "queue_name": consumer.queue.name,
            "channel": f"{session.peer.name} ({channel.number})",
            "consumer_tag": consumer.tag,
            "ack_required": not consumer.no_ack,
            "exclusive": consumer.exclusive,
            "prefetch_count": consumer.prefetch,
            "priority": consumer.priority,
        }
        for session in _sessions(node)
        if session.state == "running" and session.vhost.name == vhost
        for channel in session.channels.values()
        for consumer in channel.consumers.values()
    ]


def mirror_status(settings: Settings, urls: list[str]) -> Row:
    """What there is to say of a node that keeps a mirror and serves nobody."""
    return {
        "version": __version__,
        "product": settings.product,
        "product_version": settings.product_version,
        "pid": os.getpid(),
        "listeners": list(urls),
        "data_dir": settings.data_dir,
    }


def status(node: Node) -> Row:
    """How the broker is."""
    vhosts = node.broker.vhosts.values()
    everything = [queue for vhost in vhosts for queue in vhost.queues.values()]
    return {
        "version": __version__,
        "product": node.settings.product,
        "product_version": node.settings.product_version,
        "cluster_name": node.hub.cluster_name,
        "pid": os.getpid(),
        "uptime_ms": node.now() - node.started_at,
        "listeners": list(node.urls),
        "data_dir": node.settings.data_dir,
        "alarms": sorted(node.hub.alarms),
        "message_memory_bytes": node.broker.usage.bytes,
        "memory_limit_bytes": node.memory_limit,
        "users": len(node.hub.access.roster.users),
        "vhosts": len(vhosts),
        "connections": len(node.links),
        "channels": sum(len(session.channels) for session in node.links),
        "queues": len(everything),
        "messages": sum(queue.ready + queue.unacked for queue in everything),
    }
