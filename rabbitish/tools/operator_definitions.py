"""Commands for an operator, continued: definitions, runtime parameters, tracing, and a virtual host's metadata.

As in operator.py. `rabbitish definitions export` and `import` are export_definitions and import_definitions, which are
rabbitmqctl's names.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from rabbitish.tools import control
from rabbitish.tools.typed import COMMANDS, argument, command, password, vhost_option

_one_vhost = click.option("-p", "--vhost", help="Of this virtual host alone.")


# ---- definitions


def _write(result: object, path: str, vhost: str | None) -> None:
    assert isinstance(result, bytes)
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(result)
        sys.stdout.buffer.flush()
        return
    try:
        # Password hashes are in it.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(result)
    except OSError as error:
        control.fail(f"cannot write {path}: {error.strerror or error}")


def _read(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        return Path(path).read_bytes()
    except OSError as error:
        control.fail(f"cannot read {path}: {error.strerror or error}")


def _tell(result: Any, path: str, vhost: str | None) -> None:
    for note in result["notes"]:
        click.echo(f"rabbitish: {note}", err=True)
    objects, made = result["objects"], result["made"]
    parts = []
    for name, count in objects.items():
        new = f" ({made[name]} new)" if name in made else ""
        parts.append(f"{count} {name.replace('_', ' ')}{new}")
    click.echo(f"imported: {', '.join(parts) or 'nothing'}")


@command(_one_vhost, argument("path", metavar="FILE|-"), show=_write)
def export_definitions(path: str, vhost: str | None) -> dict[str, object]:
    """Write everything that is declared and decided to a file, as RabbitMQ's JSON; "-" is standard output."""
    return {"vhost": vhost}


@command(
    click.option("-p", "--vhost", help="A file of one virtual host, into this one."),
    argument("path", default="-", metavar="[FILE|-]"),
    show=_tell,
)
def import_definitions(path: str, vhost: str | None) -> dict[str, object]:
    """Import RabbitMQ's JSON from a file or standard input, as a whole or not at all."""
    return {"content": _read(path), "vhost": vhost}


@click.group()
def definitions() -> None:
    """Export and import definitions."""


for _name, _command in (("export", "export_definitions"), ("import", "import_definitions")):
    definitions.add_command(next(each for each in COMMANDS if each.name == _command), _name)


# ---- runtime parameters


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise click.UsageError(f"a value is JSON, not {text!r}; a string has quotes in it, as in '\"text\"'.") from None


@command(vhost_option, argument("component"), argument("name"), argument("value"))
def set_parameter(vhost: str, component: str, name: str, value: str) -> dict[str, object]:
    """Set a runtime parameter of a virtual host; VALUE is JSON."""
    return {"vhost": vhost, "component": component, "name": name, "value": _value(value)}


@command(vhost_option, argument("component"), argument("name"))
def clear_parameter(**given: str) -> dict[str, object]:
    """Clear a runtime parameter of a virtual host."""
    return dict(given)


@command(vhost_option, columns="component name value")
def list_parameters(vhost: str) -> dict[str, object]:
    """List runtime parameters of a virtual host, limits and operator policies among them."""
    return {"vhost": vhost}


@command(argument("name"), argument("value"))
def set_global_parameter(name: str, value: str) -> dict[str, object]:
    """Set a runtime parameter that is no virtual host's; VALUE is JSON."""
    return {"name": name, "value": _value(value)}


@command(argument("name"))
def clear_global_parameter(name: str) -> dict[str, object]:
    """Clear a runtime parameter that is no virtual host's."""
    return {"name": name}


@command(columns="name value")
def list_global_parameters() -> dict[str, object]:
    """List runtime parameters that are no virtual host's."""
    return {}


@command(argument("name"))
def set_cluster_name(name: str) -> dict[str, object]:
    """Set the name that clients see in server-properties."""
    return {"name": name}


# ---- users and virtual hosts


@command(argument("name"), argument("given", metavar="[PASSWORD]", required=False))
def authenticate_user(name: str, given: str | None) -> dict[str, object]:
    """Try a user's password. Without PASSWORD it is asked for, or read from standard input."""
    return {"name": name, "password": password(given)}


@command(argument("user"), columns="vhost exchange write read")
def list_user_topic_permissions(user: str) -> dict[str, object]:
    """List a user's topic permissions in all virtual hosts."""
    return {"user": user}


@command(argument("name"), argument("tags", nargs=-1))
def set_vhost_tags(name: str, tags: tuple[str, ...]) -> dict[str, object]:
    """Set a virtual host's tags in place of all others."""
    return {"name": name, "tags": list(tags)}


@command(
    argument("name"),
    click.option("--description", help="What it is for."),
    click.option("--tags", help="Separated by commas."),
    click.option("--default-queue-type", help="classic, quorum or stream, for queues that do not say."),
)
def update_vhost_metadata(
    name: str, description: str | None, tags: str | None, default_queue_type: str | None
) -> dict[str, object]:
    """Change a virtual host's description, tags or default queue type; what is not given stays."""
    listed = None if tags is None else [tag.strip() for tag in tags.split(",") if tag.strip()]
    return {"name": name, "description": description, "tags": listed, "default_queue_type": default_queue_type}


@command(vhost_option)
def trace_on(vhost: str) -> dict[str, object]:
    """Send copies of all messages of a virtual host to its exchange amq.rabbitmq.trace."""
    return {"vhost": vhost}


@command(vhost_option)
def trace_off(vhost: str) -> dict[str, object]:
    """Send no more copies."""
    return {"vhost": vhost}
