"""What commands that are typed have in common: where the broker is, what is sent, how the answer is shown.

`command` makes a click command of a function that returns a request's arguments; its name is the function's. What is
shown is what came back: nothing, a line, a table of some columns or JSON. `COMMANDS` has all of them.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

COMMANDS: list[click.Command] = []
"""All of them, in the order of their help."""

vhost_option = click.option("-p", "--vhost", default="/", show_default=True, help="The virtual host.")
_names = click.argument("columns", nargs=-1, metavar="[COLUMN]...")


def command(
    *parameters: Callable[[Any], Any], columns: str = "", show: Callable[..., None] | None = None
) -> Callable[[Any], Any]:
    """Make a function that returns a request's arguments a command of its name.

    `columns`: it lists, and shows these unless it is told others. `show` is given the answer and what was typed. An
    argument "content" is bytes, and follows the request; "wait_seconds" is how long a broker is waited for.
    """

    def make(function: Callable[..., dict[str, object]]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(
            socket: str | None, data_dir: str | None, config_file: Path | None, as_json: bool = False, **given: Any
        ) -> None:
            from rabbitish.tools import control

            shown = given.pop("columns", ()) or columns.split()
            arguments = function(**given)
            content = arguments.pop("content", None)
            assert content is None or isinstance(content, bytes)
            wait_seconds = arguments.pop("wait_seconds", 0)
            assert isinstance(wait_seconds, int | float)
            result = control.request(
                function.__name__,
                arguments,
                content,
                socket=socket,
                data_dir=data_dir,
                config_file=config_file,
                wait_seconds=wait_seconds,
            )
            if as_json:
                control.show(result, [], as_json=True)
            elif show is not None:
                show(result, **given)
            elif columns:
                control.show(result, list(shown), as_json=False)
            elif result is not None:
                click.echo(result)

        options = [
            click.option("--socket", metavar="PATH", help="The broker's control socket."),
            click.option("--data-dir", metavar="DIR", help="The broker's data directory, where its control socket is."),
            click.option(
                "--config", "config_file", type=click.Path(path_type=Path), envvar="RABBITISH_CONFIG", help="TOML file."
            ),
        ]
        if columns:
            options.append(click.option("--json", "as_json", is_flag=True, help="Everything, as JSON."))
        for option in reversed([*parameters, *([_names] if columns else []), *options]):
            run = option(run)
        COMMANDS.append(click.command(function.__name__)(run))
        return run

    return make


def argument(name: str, **options: Any) -> Callable[[Any], Any]:
    """A command's argument."""
    return click.argument(name, **options)


def password(given: str | None) -> str:
    """The password, asked for where it was not given: on a terminal, or else a line of standard input."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\n")
