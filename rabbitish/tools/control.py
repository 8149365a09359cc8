"""The operator's end of the control socket: one request, one answer, and how answers are printed.

Where the socket is follows from the same settings as for `serve`, so that both find each other without being told.
Tables are for eyes: whatever a client chose is escaped. JSON has everything that the broker said.
"""

from __future__ import annotations

import json
import os
import socket as sockets
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click

EXIT_CANNOT = 1
EXIT_UNUSABLE = 2
_TRY_AGAIN_SECONDS = 0.05


def request(
    command: str,
    arguments: dict[str, object],
    content: bytes | None = None,
    *,
    socket: str | None,
    data_dir: str | None,
    config_file: Path | None,
    wait_seconds: float = 0,
) -> object:
    """What the broker answers; bytes, where that is a file. Ends the program with a line on stderr where it cannot be
    asked within `wait_seconds`, or says no. `content` is a file that goes with the request.
    """
    path = _find(socket, data_dir, config_file)
    asked: dict[str, object] = {"command": command, "arguments": arguments}
    if content is not None:
        asked["content_bytes"] = len(content)
    line = json.dumps(asked).encode() + b"\n"
    until = time.monotonic() + wait_seconds
    try:
        while True:
            try:
                answer, rest = _exchange(path, line + (content or b""))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() >= until:
                    raise
                time.sleep(_TRY_AGAIN_SECONDS)
    except OSError as error:
        fail(f"no broker answers at {path}: {error.strerror or error}", EXIT_CANNOT)
    except ValueError:
        fail(f"the broker at {path} hung up", EXIT_CANNOT)
    if not answer["ok"]:
        fail(answer["error"], EXIT_CANNOT)
    result: object = answer["result"]
    return rest if "content_bytes" in answer else result


def _find(socket: str | None, data_dir: str | None, config_file: Path | None) -> Path:
    from rabbitish.server.control_path import CONTROL_FILE
    from rabbitish.server.settings_file import ConfigError, Given, load, with_data_dir

    given = {}
    if socket is not None:
        given["control_socket"] = Given(socket, "--socket")
    if data_dir is not None:
        given["data_dir"] = Given(data_dir, "--data-dir")
    try:
        loaded = load(config_file, os.environ, given)
        if loaded.settings.control_socket:
            return Path(loaded.settings.control_socket).absolute()
        return Path(with_data_dir(loaded, os.environ).settings.data_dir).absolute() / CONTROL_FILE
    except ConfigError as error:
        fail(str(error), EXIT_UNUSABLE)


def _exchange(path: Path, data: bytes) -> tuple[dict[str, Any], bytes]:
    """The answer, and the file that follows it. OSError: nobody is there. ValueError: it is not all."""
    from rabbitish.server.control_path import reachable

    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as sock:
            sock.connect(reachable(path, folder))
            sock.sendall(data)
            with sock.makefile("rb") as file:
                answer = json.loads(file.readline())
                size = answer.get("content_bytes", 0)
                content = file.read(size)
            if len(content) != size:
                raise ValueError
            return answer, content
    finally:
        os.close(folder)


def show(result: object, columns: list[str], *, as_json: bool) -> None:
    """Print a list of objects as a table of these columns, or everything as JSON. One object is a table of its keys."""
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    if isinstance(result, dict):
        result = [{"key": key, "value": value} for key, value in result.items()]
    assert isinstance(result, list)
    known = set().union(*result) if result else set(columns)
    for column in columns:
        if column not in known:
            fail(f"there is no column {column}; there are {', '.join(sorted(known))}", EXIT_UNUSABLE)
    click.echo(table(columns, [[row[column] for column in columns] for row in result]))


def table(columns: list[str], rows: list[list[object]]) -> str:
    """Rows under their columns, as wide as they need be."""
    lines = [columns, *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(shown)


def _cell(value: object) -> str:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def fail(message: str, code: int = EXIT_CANNOT) -> NoReturn:
    """End the program with a line on stderr."""
    click.echo(f"rabbitish: {message}", err=True)
    sys.exit(code)
