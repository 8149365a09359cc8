"""Commands for an operator, continued: policies and operator policies. As in operator.py."""

from __future__ import annotations

import json

import click

from rabbitish.tools.typed import argument as _argument
from rabbitish.tools.typed import command as _command
from rabbitish.tools.typed import vhost_option as _vhost

_priority = click.option("--priority", type=int, default=0, show_default=True, help="The highest holds, alone.")
_apply_to = click.option(
    "--apply-to",
    default="all",
    show_default=True,
    metavar="queues|exchanges|all",
    help="What it is for; classic_queues, quorum_queues and streams are taken too.",
)
_COLUMNS = "vhost name pattern apply-to definition priority"


def _policy(definition: str, **given: object) -> dict[str, object]:
    try:
        return {**given, "definition": json.loads(definition)}
    except (ValueError, RecursionError):
        raise click.UsageError(f"JSON decoding error: a definition is a JSON object, not {definition!r}.") from None


@_command(_vhost, _priority, _apply_to, _argument("name"), _argument("pattern"), _argument("definition"))
def set_policy(definition: str, **given: object) -> dict[str, object]:
    """Set a policy for queues and exchanges whose name PATTERN matches, such as set_policy ttl '^jobs' '{"message-ttl":
    60000}'.
    """
    return _policy(definition, **given)


@_command(_vhost, _argument("name"))
def clear_policy(**given: str) -> dict[str, object]:
    """Clear a policy; what it did is undone."""
    return dict(given)


@_command(_vhost, columns=_COLUMNS)
def list_policies(vhost: str) -> dict[str, object]:
    """List policies in a virtual host."""
    return {"vhost": vhost}


@_command(_vhost, _priority, _apply_to, _argument("name"), _argument("pattern"), _argument("definition"))
def set_operator_policy(definition: str, **given: object) -> dict[str, object]:
    """Set an operator policy: limits that hold whatever policies and arguments say."""
    return _policy(definition, **given)


@_command(_vhost, _argument("name"))
def clear_operator_policy(**given: str) -> dict[str, object]:
    """Clear an operator policy; what it did is undone."""
    return dict(given)


@_command(_vhost, columns=_COLUMNS)
def list_operator_policies(vhost: str) -> dict[str, object]:
    """List operator policies in a virtual host."""
    return {"vhost": vhost}
