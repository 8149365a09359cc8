"""The control socket: commands from this machine for a running broker, a JSON object a line each way.

    {"command": "add_user", "arguments": {"name": "joe", "password": "..."}}
    {"ok": true, "result": null}                   {"ok": false, "error": "User \"joe\" already exists"}

A request or an answer that has "content_bytes" is followed by so many bytes: a file, whose lines are its own affair.

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
from rabbitish.server import commands_cluster, commands_definitions, commands_policies  # noqa: F401 (enter theirs)
from rabbitish.server.commands import COMMANDS, Call, ClusterView, check_arguments
from rabbitish.server.control_path import CONTROL_FILE, reachable
from rabbitish.server.keeper import JournalError
from rabbitish.server.log import get_log

if TYPE_CHECKING:
    from rabbitish.server.node import Node

_LONGEST_LINE = 1 << 20
_READ_BYTES = 65_536


class ControlError(JournalError):
    """The socket cannot be opened; the message says why, for people."""


class ControlSocket:
    """Answers commands for a node."""

    def __init__(self, node: Node | None, path: Path, cluster: ClusterView | None = None) -> None:
        """ControlError: the socket cannot be made, or another broker has it. With `cluster` it may be any node."""
        self._node = node
        self._cluster = cluster
        self._path = path
        self._log = get_log()
        try:
            self._listener = self._listen()
        except OSError as error:
            raise ControlError(f"cannot open the control socket {path}: {error.strerror or error}") from error

    @classmethod
    def open(cls, node: Node | None, cluster: ClusterView | None = None) -> ControlSocket | None:
        """The socket that the settings ask for, if any: of a broker of its own, or for any node of a cluster.

        ControlError: the one that they name cannot be opened.
        """
        here = cluster or node
        assert here is not None
        settings = here.settings
        if settings.control_socket:
            return cls(node, Path(settings.control_socket).absolute(), cluster)
        if settings.data_dir:
            try:
                return cls(node, Path(settings.data_dir).absolute() / CONTROL_FILE, cluster)
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
        reader = _Reader(trio.SocketStream(peer))
        try:
            async with reader.stream as stream:
                while (line := await reader.line()) is not None:
                    answer, content = await self._answer(line, reader, actor)
                    await stream.send_all(_written(answer))
                    if content:
                        await stream.send_all(content)
        except (trio.BrokenResourceError, trio.ClosedResourceError):  # nobody waits for the answer
            pass

    async def _answer(self, line: bytes, reader: _Reader, actor: str) -> tuple[dict[str, object], bytes]:
        try:
            request = json.loads(line)
            arguments = request.get("arguments", {})
            content = await self._content(request.get("content_bytes"), reader)
            if content is not None:
                arguments = {**arguments, "content": content}
            command = COMMANDS[request["command"]]
            arguments = check_arguments(command, arguments)
        except AccessError as error:
            return _no(str(error))
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return _no("no such command")
        try:
            node = self._node if self._cluster is None else self._cluster.front.node
            result = await command.run(Call(node, actor, self._cluster), **arguments)
        except (AccessError, JournalError) as error:
            return _no(str(error))
        except Exception as error:  # noqa: BLE001 (a bug of ours costs this command, not the broker)
            self._log.exception("internal error", error, command=request["command"])
            return _no("internal error; see the broker's log")
        if isinstance(result, bytes):
            return {"ok": True, "result": None, "content_bytes": len(result)}, result
        return {"ok": True, "result": result}, b""

    async def _content(self, size: object, reader: _Reader) -> bytes | None:
        """What follows a request. AccessError: it is too much, and has been left unread."""
        if size is None:
            return None
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise AccessError("content_bytes must be a number")
        here = self._cluster or self._node
        assert here is not None
        most = here.settings.definitions_max_bytes
        if size > most:
            await reader.skip(size)
            raise AccessError(f"it has {size} bytes, and {most} are the most (definitions_max_bytes)")
        return await reader.exactly(size)


def _written(answer: dict[str, object]) -> bytes:
    """An answer as a line; what cannot be written costs this command, not the broker."""
    try:
        return json.dumps(answer, default=_plain).encode() + b"\n"
    except (ValueError, RecursionError, TypeError):
        return json.dumps(_no("the answer cannot be written")).encode() + b"\n"


class _Reader:
    """Lines and contents from a stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()
        self._seen = 0  # so far there is no end of a line

    async def _more(self) -> bool:
        data = await self.stream.receive_some(_READ_BYTES)
        self._buffer += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        with memoryview(self._buffer) as view:
            taken = bytes(view[:size])
        del self._buffer[:size]
        self._seen = 0
        return taken

    async def line(self) -> bytes | None:
        """The next line; None: there is none, or it is too long."""
        while (end := self._buffer.find(b"\n", self._seen)) < 0:
            self._seen = len(self._buffer)
            if self._seen > _LONGEST_LINE or not await self._more():
                return None
        return self._take(end + 1)[:-1]

    async def exactly(self, size: int) -> bytes:
        """The next so many bytes. BrokenResourceError: there are no more."""
        while len(self._buffer) < size:
            if not await self._more():
                raise trio.BrokenResourceError
        return self._take(size)

    async def skip(self, size: int) -> None:
        """Leave so many bytes out."""
        while size:
            if not self._buffer and not await self._more():
                raise trio.BrokenResourceError
            size -= len(self._take(size))


def _no(error: str) -> tuple[dict[str, object], bytes]:
    return {"ok": False, "error": error}, b""


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
