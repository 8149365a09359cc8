"""The control socket: commands from this machine for a running broker, a JSON object a line each way.

    {"command": "add_user", "arguments": {"name": "joe", "password": "..."}}
    {"ok": true, "result": null}                   {"ok": false, "error": "User \"joe\" already exists"}

The socket's file permissions are the guard: whoever may open it may do everything, so only its owner can. It is made
under another name, restricted, and renamed, so there is no moment in which others could open it. What commands there
are stands in commands.py. A line that is no request is answered with an error; one that is too long ends the
connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from rabbitish.core.access.records import AccessError
from rabbitish.server import commands_policies  # noqa: F401 (enters its commands)
from rabbitish.server.commands import COMMANDS, Call, check_arguments
from rabbitish.server.keeper import JournalError
from rabbitish.server.log import get_log

if TYPE_CHECKING:
    from rabbitish.server.node import Node

CONTROL_FILE = "control.sock"
_LONGEST_LINE = 1 << 20
_READ_BYTES = 65_536
# What the kernel lets the name of a socket have, on the systems that let it have least.
_LONGEST_PATH = 103


class ControlError(JournalError):
    """The socket cannot be opened; the message says why, for people."""


def reachable(path: Path, folder: int | None = None) -> str:
    """A name for a socket's path that is short enough for the kernel; `folder` is open on the directory it is in."""
    if len(os.fsencode(path)) <= _LONGEST_PATH or folder is None:
        return str(path)
    return f"/proc/self/fd/{folder}/{path.name}"


class ControlSocket:
    """Answers commands for a node."""

    def __init__(self, node: Node, path: Path) -> None:
        """ControlError: the socket cannot be made, or another broker has it."""
        self._node = node
        self._path = path
        self._log = get_log()
        try:
            self._listener = self._listen()
        except OSError as error:
            raise ControlError(f"cannot open the control socket {path}: {error.strerror or error}") from error

    @classmethod
    def open(cls, node: Node) -> ControlSocket | None:
        """The socket that the settings ask for, if any. ControlError: the one that they name cannot be opened."""
        settings = node.settings
        if settings.control_socket:
            return cls(node, Path(settings.control_socket).absolute())
        if settings.data_dir:
            try:
                return cls(node, Path(settings.data_dir).absolute() / CONTROL_FILE)
            except ControlError as error:  # some file systems have none; a broker can do without
                get_log().warning("no commands can reach this broker", error=error)
        return None

    def _listen(self) -> socket.socket:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if self._answers(reachable(self._path, folder)):
                raise ControlError(f"cannot open the control socket {self._path}: another broker has it")
            new = self._path.with_name(f"{self._path.name}.new")
            new.unlink(missing_ok=True)
            sock.bind(reachable(new, folder))
            new.chmod(0o600)
            sock.listen()
            sock.setblocking(False)
            new.replace(self._path)
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(folder)
        return sock

    def _answers(self, name: str) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(name)
            except OSError:
                return False
        return True

    async def run(self) -> None:
        """Answer for ever."""
        listener = trio.socket.from_stdlib_socket(self._listener)
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    peer, _ = await listener.accept()
                    nursery.start_soon(self._converse, peer)
        finally:
            listener.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _converse(self, peer: trio.socket.SocketType) -> None:
        actor = _who(peer)
        stream = trio.SocketStream(peer)
        buffer = bytearray()
        try:
            async with stream:
                while data := await stream.receive_some(_READ_BYTES):
                    buffer += data
                    *lines, rest = buffer.split(b"\n")
                    buffer = rest
                    for line in lines:
                        answer = await self._answer(bytes(line), actor)
                        await stream.send_all(json.dumps(answer, default=_plain).encode() + b"\n")
                    if len(buffer) > _LONGEST_LINE:
                        return
        except (trio.BrokenResourceError, trio.ClosedResourceError):  # nobody waits for the answer
            pass

    async def _answer(self, line: bytes, actor: str) -> dict[str, object]:
        try:
            request = json.loads(line)
            name = request["command"]
            command = COMMANDS[name]
            arguments = check_arguments(command, request.get("arguments", {}))
        except AccessError as error:
            return {"ok": False, "error": str(error)}
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return {"ok": False, "error": "no such command"}
        try:
            return {"ok": True, "result": await command.run(Call(self._node, actor), **arguments)}
        except AccessError as error:
            return {"ok": False, "error": str(error)}
        except Exception as error:  # noqa: BLE001 (a bug of ours costs this command, not the broker)
            self._log.exception("internal error", error, command=name)
            return {"ok": False, "error": "internal error; see the broker's log"}


def _plain(value: Any) -> object:
    """What JSON does not know, as text."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _who(peer: trio.socket.SocketType) -> str:
    """Which user of this machine it is, where the system tells."""
    if not sys.platform.startswith("linux"):
        return "local"
    form = struct.Struct("3i")  # process, user, group
    try:
        process, user, _ = form.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size))
    except OSError:
        return "local"
    try:
        return f"{pwd.getpwuid(user).pw_name} (process {process})"
    except KeyError:
        return f"user {user} (process {process})"
