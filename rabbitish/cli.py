"""The command `rabbitish`: reads its options, puts the settings together and starts what was asked for.

A mistake of the user's is one line on stderr, never a traceback: exit code 2 for what cannot be used (options,
configuration), 1 for what cannot be done (a port that is taken). The broker itself is imported only when it is to run,
so that `--version` and a wrong option answer at once.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from rabbitish import __version__
from rabbitish.config import DEFAULT_PORT, LOG_LEVELS, Address

if TYPE_CHECKING:
    from rabbitish.server.settings_file import Given, Loaded

EXIT_CANNOT = 1
EXIT_UNUSABLE = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="rabbitish %(version)s")
def main() -> None:
    """A message broker that RabbitMQ's clients use without noticing."""


def with_settings(command: Callable[[Loaded], None]) -> Callable[..., None]:
    """Give a command the options that change settings, and call it with what they add up to."""
    options = (
        click.option("--host", help="Address to listen on.  [default: localhost]"),
        click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on.  [default: 5672]"),
        click.option("--listen", multiple=True, metavar="URL", help="amqp://host:port; may be given several times."),
        click.option("--data-dir", help="Folder for the journal; without one nothing survives the process."),
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
        from rabbitish.server.settings_file import ConfigError, load

        try:
            command(load(config_file, os.environ, _from_options(**given)))
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
    from rabbitish.server.listener import ListenError
    from rabbitish.server.node import JournalError
    from rabbitish.server.node import serve as serve_node

    log.configure(loaded.settings.log_level)
    refused: list[str] = []
    try:
        trio.run(serve_node, loaded.settings, _announce)
    except* (ListenError, JournalError) as group:  # trio's nurseries raise groups
        refused = _messages(group)
    if refused:
        _fail("; ".join(refused), EXIT_CANNOT)


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
    log_level: str | None,
    assignments: tuple[str, ...],
) -> dict[str, Given]:
    """The settings that options give, an option of its own winning over --set."""
    from rabbitish.server.settings_file import Given, parse_option

    given: dict[str, Given] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"--set takes KEY=VALUE, not {assignment!r}.")
        given[key] = parse_option(key, text, "--set")
    if listen and (host is not None or port is not None):
        raise click.UsageError("--listen already says host and port; give either --listen or --host and --port.")
    if listen:
        given["listen"] = Given(listen, "--listen")
    elif host is not None or port is not None:
        address = Address("amqp", host or "localhost", DEFAULT_PORT if port is None else port)
        names = [name for name, value in (("--host", host), ("--port", port)) if value is not None]
        given["listen"] = Given((str(address),), " and ".join(names))
    if data_dir is not None:
        given["data_dir"] = Given(data_dir, "--data-dir")
    if log_level is not None:
        given["log_level"] = Given(log_level, "--log-level")
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
