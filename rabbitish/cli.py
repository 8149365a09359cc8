"""The command `rabbitish`: reads its options, puts the settings together and starts what was asked for.

A mistake of the user's is one line on stderr, never a traceback: exit code 2 for what cannot be used (options,
configuration), 1 for what cannot be done (a port that is taken). The broker itself is imported only when it is to run,
so that `--version` and a wrong option answer at once.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from rabbitish import __version__
from rabbitish.addresses import DEFAULT_PORT, Address, SettingError
from rabbitish.config import LOG_LEVELS
from rabbitish.tools import operator_policies  # noqa: F401 (enters its commands)
from rabbitish.tools.cluster import cluster
from rabbitish.tools.journal import journal
from rabbitish.tools.operator import COMMANDS
from rabbitish.tools.operator_definitions import definitions

if TYPE_CHECKING:
    from rabbitish.server.settings_file import Given, Loaded

EXIT_CANNOT = 1
EXIT_UNUSABLE = 2

# Options that are named otherwise than the setting they give.
_KEYS = {name: f"ssl_options_{name}" for name in ("certfile", "keyfile", "cacertfile")}
_KEYS["definitions"] = "load_definitions"


class _Main(click.Group):
    """The commands below, and those that are imported when somebody asks for them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted((*super().list_commands(ctx), "perf"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "perf":
            from rabbitish.perf.command import perf

            return perf
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="rabbitish %(version)s")
def main() -> None:
    """A message broker that RabbitMQ's clients use without noticing."""


def with_settings(command: Callable[[Loaded], None]) -> Callable[..., None]:
    """Give a command the options that change settings, and call it with what they add up to."""
    options = (
        click.option("--host", help="Address to listen on.  [default: localhost]"),
        click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on.  [default: 5672]"),
        click.option("--listen", multiple=True, metavar="URL", help="amqp[s]://host:port; may be given several times."),
        click.option("--certfile", help="PEM file of the certificate for amqps, with its chain."),
        click.option("--keyfile", help="PEM file of its private key, if it is not in the same file."),
        click.option("--cacertfile", help="PEM file of the authorities of clients' certificates."),
        click.option("--data-dir", help="Folder for what is durable.  [default: ~/.local/state/rabbitish]"),
        click.option("--ephemeral", is_flag=True, help="Keep nothing on disk: nothing survives the process."),
        click.option("--definitions", metavar="FILE", help="RabbitMQ's JSON, imported before anybody may connect."),
        click.option("--cluster", metavar="URL", help="etcd://host:port[,host:port...][/NAME]: be one of its nodes."),
        click.option(
            "--node-name", metavar="NAME", help="This node's name in the cluster.  [default: the host's name]"
        ),
        click.option("--cluster-listen", metavar="HOST:PORT", help="For other nodes.  [default: 0.0.0.0:25672]"),
        click.option("--cluster-advertise", metavar="HOST[:PORT]", help="Where they reach it, if not there."),
        click.option("--cluster-min-in-sync", metavar="N", help="Replicas that confirms need.  [default: a majority]"),
        click.option("--log-level", type=click.Choice(LOG_LEVELS)),
        click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Any setting by its key."),
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            envvar="RABBITISH_CONFIG",
            show_envvar=True,
            help="TOML file to read settings from.",
        ),
    )

    @functools.wraps(command)
    def run(config_file: Path | None, **given: Any) -> None:
        from rabbitish.server.settings_file import ConfigError, load, with_data_dir

        try:
            loaded = load(config_file, os.environ, _from_options(**given))
            command(loaded if loaded.settings.ephemeral else with_data_dir(loaded, os.environ))
        except ConfigError as error:
            _fail(str(error), EXIT_UNUSABLE)

    for option in reversed(options):
        run = option(run)
    return run


@main.command()
@with_settings
def serve(loaded: Loaded) -> None:
    """Run the broker until SIGTERM or SIGINT; print one line when it listens."""
    import trio

    from rabbitish.server import log
    from rabbitish.server.keeper import JournalError
    from rabbitish.server.listener import ListenError
    from rabbitish.server.node import DataDirError
    from rabbitish.server.node import serve as serve_node
    from rabbitish.server.settings_file import ANOTHER_FOLDER, OTHER_WAYS

    log.configure(loaded.settings.log_level)
    refused: list[str] = []
    try:
        trio.run(_serve_clustered(loaded) if loaded.settings.cluster else serve_node, loaded.settings, _announce)
    except* DataDirError as group:  # trio's nurseries raise groups
        refused = [*_messages(group), ANOTHER_FOLDER if loaded.settings.cluster else OTHER_WAYS]
    except* (ListenError, JournalError) as group:
        refused = _messages(group)
    if refused:
        _fail("; ".join(refused), EXIT_CANNOT)


def _serve_clustered(loaded: Loaded) -> Callable[..., Awaitable[None]]:
    """What serves as a node of a cluster; a broker of its own never needs the module, nor h11, on which it stands."""
    from importlib import import_module
    from importlib.util import find_spec

    if find_spec("h11") is None:
        _fail("--cluster needs h11, to speak to etcd: pip install h11", EXIT_UNUSABLE)
    from rabbitish.server.cluster_place import cluster_place

    try:
        cluster_place(loaded.settings)
    except SettingError as error:  # what this host is called is no name for a node
        _fail(f"{loaded.sources[error.keys[0]]}: {error}", EXIT_UNUSABLE)
    serve_clustered: Callable[..., Awaitable[None]] = import_module("rabbitish.server.clustered").serve_clustered
    return serve_clustered


main.add_command(journal)
main.add_command(definitions)
main.add_command(cluster)
for _command in COMMANDS:
    main.add_command(_command)


@main.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@with_settings
def show(loaded: Loaded) -> None:
    """Print the settings that `serve` would run with, as TOML, and where each comes from."""
    from rabbitish.server.settings_file import to_toml

    click.echo(to_toml(loaded), nl=False)


def _from_options(
    host: str | None,
    port: int | None,
    listen: tuple[str, ...],
    data_dir: str | None,
    ephemeral: bool,
    assignments: tuple[str, ...],
    **plain: str | None,
) -> dict[str, Given]:
    """The settings that options give, an option of its own winning over --set."""
    from rabbitish.server.settings_file import Given, key_of, parse_option

    given: dict[str, Given] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes KEY=VALUE, not {assignment!r}.")
        key = key_of(name)
        given[key] = parse_option(key, text, "--set")
    if listen and (host is not None or port is not None):
        raise click.UsageError("--listen already says host and port; give either --listen or --host and --port.")
    if listen:
        given["listen"] = Given(listen, "--listen")
    elif host is not None or port is not None:
        address = Address("amqp", host or "localhost", DEFAULT_PORT if port is None else port)
        names = [name for name, value in (("--host", host), ("--port", port)) if value is not None]
        given["listen"] = Given((str(address),), " and ".join(names))
    if data_dir is not None and ephemeral:
        raise click.UsageError("--data-dir says where to keep data, --ephemeral to keep none; give one of them.")
    if data_dir == "":
        raise click.UsageError("--data-dir needs the name of a folder; to keep nothing there is --ephemeral.")
    if ephemeral:
        given["ephemeral"] = Given(True, "--ephemeral")
    if data_dir is not None:
        given["data_dir"] = Given(data_dir, "--data-dir")
    for name, value in plain.items():
        if value is not None:
            given[_KEYS.get(name, name)] = parse_option(_KEYS.get(name, name), value, f"--{name.replace('_', '-')}")
    return given


def _announce(urls: list[str]) -> None:
    """The line that says the broker is ready; whoever started us waits for it."""
    click.echo(f"rabbitish {__version__} listening on {', '.join(urls)}")
    sys.stdout.flush()


def _messages(group: BaseExceptionGroup[Exception]) -> list[str]:
    """What the errors in a group, however nested, say."""
    messages: list[str] = []
    for error in group.exceptions:
        messages += _messages(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return messages


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"rabbitish: {message}", err=True)
    sys.exit(code)
