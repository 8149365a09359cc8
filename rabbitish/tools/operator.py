"""Commands for an operator, to a broker that runs: `rabbitish add_user`, `list_queues` and the others of rabbitmqctl.

Each is a click command that makes one request of the control socket (control.py) and prints what comes back, as a table
or with --json. What a command means is decided by the broker. Options and order of arguments are rabbitmqctl's.
"""

from __future__ import annotations

import click

from rabbitish.tools.typed import COMMANDS
from rabbitish.tools.typed import argument as _argument
from rabbitish.tools.typed import command as _command
from rabbitish.tools.typed import password as _password
from rabbitish.tools.typed import vhost_option as _vhost

__all__ = ["COMMANDS"]


def _limits(text: str) -> dict[str, object]:
    import json

    try:
        limits = json.loads(text)
    except (ValueError, RecursionError):
        limits = None
    if not isinstance(limits, dict):
        raise click.UsageError(f'limits are a JSON object such as {{"max-connections": 10}}, not {text!r}.')
    return limits


# ---- users


@_command(_argument("name"), _argument("password", required=False))
def add_user(name: str, password: str | None) -> dict[str, object]:
    """Add a user, who may do nothing yet. Without PASSWORD it is asked for, or read from standard input."""
    return {"name": name, "password": _password(password)}


@_command(_argument("name"))
def delete_user(name: str) -> dict[str, object]:
    """Delete a user with all permissions, and close the user's connections."""
    return {"name": name}


@_command(_argument("name"), _argument("password", required=False))
def change_password(name: str, password: str | None) -> dict[str, object]:
    """Change a user's password. Without PASSWORD it is asked for, or read from standard input."""
    return {"name": name, "password": _password(password)}


@_command(_argument("name"))
def clear_password(name: str) -> dict[str, object]:
    """Let a user log in by other means than a password alone."""
    return {"name": name}


@_command(_argument("name"), _argument("tags", nargs=-1))
def set_user_tags(name: str, tags: tuple[str, ...]) -> dict[str, object]:
    """Set a user's tags in place of all others: administrator, monitoring, policymaker, management, impersonator."""
    return {"name": name, "tags": list(tags)}


@_command(_argument("name"), _argument("limits"))
def set_user_limits(name: str, limits: str) -> dict[str, object]:
    """Set a user's limits, such as '{"max-connections": 10, "max-channels": 100}'; negative: none."""
    return {"name": name, "limits": _limits(limits)}


@_command(_argument("name"), _argument("limit"))
def clear_user_limits(name: str, limit: str) -> dict[str, object]:
    """Clear one of a user's limits, or "all"."""
    return {"name": name, "limit": limit}


@_command(columns="user tags")
def list_users() -> dict[str, object]:
    """List users and their tags."""
    return {}


@_command(columns="user limits")
def list_user_limits() -> dict[str, object]:
    """List users that have limits."""
    return {}


# ---- permissions


@_command(_vhost, _argument("user"), _argument("configure"), _argument("write"), _argument("read"))
def set_permissions(**given: str) -> dict[str, object]:
    """Set what a user may do in a virtual host, by regular expressions for names of queues and exchanges."""
    return dict(given)


@_command(_vhost, _argument("user"))
def clear_permissions(**given: str) -> dict[str, object]:
    """Let a user not enter a virtual host any more."""
    return dict(given)


@_command(_vhost, columns="user configure write read")
def list_permissions(vhost: str) -> dict[str, object]:
    """List permissions in a virtual host."""
    return {"vhost": vhost}


@_command(_argument("user"), columns="vhost configure write read")
def list_user_permissions(user: str) -> dict[str, object]:
    """List a user's permissions in all virtual hosts."""
    return {"user": user}


@_command(_vhost, _argument("user"), _argument("exchange"), _argument("write"), _argument("read"))
def set_topic_permissions(**given: str) -> dict[str, object]:
    """Set which routing keys a user may use with a topic exchange; {username} and {vhost} are replaced."""
    return dict(given)


@_command(_vhost, _argument("user"), _argument("exchange", required=False))
def clear_topic_permissions(**given: str | None) -> dict[str, object]:
    """Let a user use all routing keys with a topic exchange, or with all of them."""
    return dict(given)


@_command(_vhost, columns="user exchange write read")
def list_topic_permissions(vhost: str) -> dict[str, object]:
    """List topic permissions in a virtual host."""
    return {"vhost": vhost}


# ---- virtual hosts


@_command(
    _argument("name"),
    click.option("--description", default="", help="What it is for."),
    click.option("--tags", default="", help="Separated by commas."),
    click.option("--default-queue-type", help="classic, quorum or stream, for queues that do not say."),
)
def add_vhost(name: str, description: str, tags: str, default_queue_type: str | None) -> dict[str, object]:
    """Add a virtual host."""
    listed = [tag.strip() for tag in tags.split(",") if tag.strip()]
    return {"name": name, "description": description, "tags": listed, "default_queue_type": default_queue_type}


@_command(_argument("name"))
def delete_vhost(name: str) -> dict[str, object]:
    """Delete a virtual host with everything in it, and close its connections."""
    return {"name": name}


@_command(_vhost, _argument("limits"))
def set_vhost_limits(vhost: str, limits: str) -> dict[str, object]:
    """Set a virtual host's limits, such as '{"max-connections": 100, "max-queues": 50}'; negative: none."""
    return {"vhost": vhost, "limits": _limits(limits)}


@_command(_vhost)
def clear_vhost_limits(vhost: str) -> dict[str, object]:
    """Clear a virtual host's limits."""
    return {"vhost": vhost}


@_command(columns="name")
def list_vhosts() -> dict[str, object]:
    """List virtual hosts; columns: name description tags default_queue_type tracing."""
    return {}


@_command(columns="vhost limits")
def list_vhost_limits() -> dict[str, object]:
    """List virtual hosts that have limits."""
    return {}


# ---- what there is


@_command(_vhost, columns="name messages")
def list_queues(vhost: str) -> dict[str, object]:
    """List queues; columns: name durable auto_delete exclusive arguments messages_ready messages_unacknowledged
    messages message_bytes consumers state type policy operator_policy effective_policy_definition, and in a cluster
    leader members in_sync.
    """
    return {"vhost": vhost}


@_command(_vhost, columns="name type")
def list_exchanges(vhost: str) -> dict[str, object]:
    """List exchanges; columns: name type durable auto_delete internal arguments policy operator_policy
    effective_policy_definition.
    """
    return {"vhost": vhost}


@_command(_vhost, columns="source_name source_kind destination_name destination_kind routing_key arguments")
def list_bindings(vhost: str) -> dict[str, object]:
    """List bindings, those of the default exchange included."""
    return {"vhost": vhost}


@_command(_vhost, columns="queue_name channel consumer_tag ack_required prefetch_count")
def list_consumers(vhost: str) -> dict[str, object]:
    """List consumers; further columns: exclusive priority."""
    return {"vhost": vhost}


@_command(columns="name user vhost state channels")
def list_connections() -> dict[str, object]:
    """List connections; further columns: peer_host peer_port auth_mechanism channel_max frame_max timeout connected_at
    connection_name client_properties ssl ssl_protocol ssl_cipher peer_cert_subject peer_cert_issuer peer_cert_validity.
    """
    return {}


@_command(columns="name user consumer_count messages_unacknowledged")
def list_channels() -> dict[str, object]:
    """List channels; further columns: connection number vhost transactional confirm prefetch_count
    global_prefetch_count.
    """
    return {}


@_command(_argument("connection"), _argument("explanation"))
def close_connection(**given: str) -> dict[str, object]:
    """Close the connection of that name (see list_connections); the client is told the EXPLANATION."""
    return dict(given)


@_command(
    click.option("-p", "--vhost", help="Only those to this virtual host."),
    _argument("explanation"),
)
def close_all_connections(**given: str | None) -> dict[str, object]:
    """Close all connections, and print how many there were."""
    return dict(given)


@_command(_argument("user"), _argument("explanation"))
def close_all_user_connections(**given: str) -> dict[str, object]:
    """Close all connections of a user, and print how many there were."""
    return dict(given)


@_command(click.option("--timeout", type=click.FloatRange(0), default=300, show_default=True, help="Seconds to wait."))
def await_startup(timeout: float) -> dict[str, object]:
    """Wait until the broker has started and listens."""
    return {"wait_seconds": timeout}


@_command(columns="key value")
def status() -> dict[str, object]:
    """Show how the broker is."""
    return {}
