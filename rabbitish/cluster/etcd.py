"""A client of etcd, as small as we need it: its JSON gateway, HTTP/1.1 by h11, over trio's streams.

Every failure is `Unknown`: a lost connection, a timeout, a status that is not 200, a body that makes no sense. What a
write did is then not known, and no text of an error is read to guess it. Definite are only answers: a transaction that
says whether it succeeded, a keep-alive that says what is left of a lease. Reads are tried at the next endpoint; so is a
write, but only as long as nothing of it was sent.

A watch asks for an error when its member has no leader (else it would stay silent), and `follow` reads anew, with a
read that a majority answers, whenever nothing was heard for some time, a watch breaks, or what it needs was compacted.

etcd's gateway speaks base64 and writes integers as strings; zeroes are left out.
"""

from __future__ import annotations

import json
import ssl
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import h11
import trio

_READ_BYTES = 64 * 1024
_MOST_IDLE = 4
_AGAIN_SECONDS = 0.2
Json = dict[str, Any]


class Unknown(Exception):
    """etcd did not answer, or not with an answer: what was asked may have happened, may yet happen, or never will."""


class Compacted(Exception):
    """What a watch was to begin with is not kept any more: read anew."""


class KeyValue(NamedTuple):
    """A key, and the revisions of its last change and of its creation; the lease it hangs on, or 0."""

    key: bytes
    value: bytes
    modified: int
    created: int
    lease: int


class Range(NamedTuple):
    """What was read at a revision of the whole store."""

    revision: int
    kvs: list[KeyValue]


class Event(NamedTuple):
    """A change; `gone`: the key was deleted, or its lease ended."""

    kv: KeyValue
    gone: bool


class Txn(NamedTuple):
    """How a transaction ended, at which revision, and what its reads gave."""

    succeeded: bool
    revision: int
    ranges: list[list[KeyValue]]


_LINK = (OSError, trio.TooSlowError, trio.BrokenResourceError, h11.ProtocolError, ValueError)
_SENSE = (LookupError, TypeError, ValueError, AttributeError)


class _Strict:
    """Around what may fail in ways that mean nothing definite: those are Unknown."""

    def __init__(self, what: str, kinds: tuple[type[Exception], ...]) -> None:
        self._what = what
        self._kinds = kinds

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._kinds):
            raise Unknown(f"{self._what}: {error!r}") from error


def _b64(data: bytes) -> str:
    return b64encode(data).decode()


def end_of(prefix: bytes) -> bytes:
    """The first key behind all with a prefix."""
    for at in range(len(prefix) - 1, -1, -1):
        if prefix[at] < 0xFF:
            return prefix[:at] + bytes([prefix[at] + 1])
    return b"\0"


def modified_at(key: bytes, revision: int) -> Json:
    """Compare: the key was last changed at that revision; 0: it is not there."""
    return {"key": _b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def not_there(key: bytes) -> Json:
    """Compare: there is no such key."""
    return {"key": _b64(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}


def put(key: bytes, value: bytes, lease: int = 0) -> Json:
    """An operation of a transaction."""
    return {"request_put": {"key": _b64(key), "value": _b64(value), "lease": str(lease)}}


def delete(key: bytes) -> Json:
    """An operation of a transaction."""
    return {"request_delete_range": {"key": _b64(key)}}


def get(key: bytes, *, prefix: bool = False) -> Json:
    """An operation of a transaction."""
    request = {"key": _b64(key)}
    if prefix:
        request["range_end"] = _b64(end_of(key))
    return {"request_range": request}


def _kv(found: Json) -> KeyValue:
    return KeyValue(
        b64decode(found["key"]),
        b64decode(found.get("value", "")),
        int(found.get("mod_revision", 0)),
        int(found.get("create_revision", 0)),
        int(found.get("lease", 0)),
    )


class _Connection:
    """One connection, one request at a time."""

    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self._stream = stream
        self._host = host
        self._http = h11.Connection(h11.CLIENT)

    async def send(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        lines = {"Host": self._host, "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        data = self._http.send(h11.Request(method="POST", target=path, headers=list(lines.items()))) or b""
        data += (self._http.send(h11.Data(data=body)) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        await self._stream.send_all(data)

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some(_READ_BYTES)))
        return event

    async def head(self) -> None:
        """The answer's head. Unknown: it is no 200."""
        event = await self._event()
        if not isinstance(event, h11.Response) or event.status_code != 200:
            raise Unknown(f"etcd answered {event!r}")

    async def piece(self) -> bytes:
        """More of the answer's body; nothing at its end."""
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise Unknown("etcd closed the connection")
        return b""

    def reusable(self) -> bool:
        """Whether another request may follow."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    async def close(self) -> None:
        with trio.CancelScope(shield=True):  # it does not wait, and the next one is to be closed as well
            await trio.aclose_forcefully(self._stream)


class Watch:
    """Changes in order, as an iterator of (revision, events). Unknown: it broke. Compacted: it cannot begin there."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._buffer = b""

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> tuple[int, list[Event]]:
        with _Strict("/v3/watch", _LINK):
            while b"\n" not in self._buffer:
                piece = await self._connection.piece()
                if not piece:
                    raise Unknown("the watch ended")
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        with _Strict("a watch that makes no sense", _SENSE):
            result = json.loads(line)["result"]
            if int(result.get("compact_revision", 0)):
                raise Compacted
            if result.get("canceled"):
                raise Unknown(f"the watch was ended: {line[:200]!r}")
            events = [Event(_kv(each["kv"]), each.get("type", "PUT") == "DELETE") for each in result.get("events", ())]
            return int(result["header"]["revision"]), events


class Etcd:
    """See the module. `timeout` is in seconds, for each request."""

    def __init__(
        self,
        endpoints: Sequence[tuple[str, int]],
        *,
        timeout: float = 2.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("etcd needs an endpoint")
        self._endpoints = list(endpoints)
        self._timeout = timeout
        self._context = context
        self._at = 0  # the endpoint that answered last
        self._idle: list[tuple[int, _Connection]] = []

    async def aclose(self) -> None:
        """Close what is open."""
        while self._idle:
            await self._idle.pop()[1].close()

    # ---- requests

    async def _connect(self, at: int) -> _Connection:
        host, port = self._endpoints[at]
        stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
        if self._context is not None:
            stream = trio.SSLStream(stream, self._context, server_hostname=host, https_compatible=True)
        return _Connection(stream, f"{host}:{port}")

    async def _take(self) -> tuple[int, _Connection]:
        """A connection to the endpoint that answered last, or to the next that can be reached. Unknown: none can."""
        reason = "nothing was tried"
        while self._idle:
            at, connection = self._idle.pop()
            if at == self._at:
                return at, connection
            await connection.close()
        for _ in self._endpoints:
            at = self._at
            try:
                with trio.fail_after(self._timeout):
                    return at, await self._connect(at)
            except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
                reason = f"{self._endpoints[at][0]}:{self._endpoints[at][1]} cannot be reached: {error!r}"
                self._at = (at + 1) % len(self._endpoints)
        raise Unknown(reason)

    async def _once(self, path: str, body: bytes) -> Json:
        at, connection = await self._take()
        try:
            with _Strict(path, _LINK):
                with trio.fail_after(self._timeout):
                    await connection.send(path, body, {})
                    await connection.head()
                    answer = b""
                    while piece := await connection.piece():
                        answer += piece
                found = json.loads(answer)
                if not isinstance(found, dict):
                    raise Unknown(f"etcd answered {answer[:100]!r}")
        except BaseException:
            await connection.close()
            await self._give_up(at)
            raise
        if len(self._idle) < _MOST_IDLE and connection.reusable():
            self._idle.append((at, connection))
        else:
            await connection.close()
        return found

    async def _give_up(self, at: int) -> None:
        """Try the next endpoint first; what else is open to this one is most likely as dead."""
        self._at = (at + 1) % len(self._endpoints)
        dead = [connection for where, connection in self._idle if where == at]
        self._idle = [(where, connection) for where, connection in self._idle if where != at]
        for connection in dead:
            await connection.close()

    async def _call(self, path: str, request: Json, *, read: bool = False) -> Json:
        """Ask. Unknown: see the module; for reads, every endpoint was tried."""
        body = json.dumps(request).encode()
        for left in range(len(self._endpoints) if read else 1, 0, -1):
            try:
                return await self._once(path, body)
            except Unknown:
                if left == 1:
                    raise
        raise AssertionError

    # ---- keys

    async def range(self, key: bytes, *, prefix: bool = False, serializable: bool = False) -> Range:
        """Read a key, or all with a prefix; linearizable, or `serializable`: what one member knows, maybe outdated."""
        request: Json = {"key": _b64(key), "serializable": serializable}
        if prefix:
            request["range_end"] = _b64(end_of(key))
        found = await self._call("/v3/kv/range", request, read=True)
        with _Strict("an answer that makes no sense", _SENSE):
            return Range(int(found["header"]["revision"]), [_kv(kv) for kv in found.get("kvs", ())])

    async def txn(self, compare: Sequence[Json], success: Sequence[Json], failure: Sequence[Json] = ()) -> Txn:
        """Do `success` if all comparisons hold, else `failure`. Unknown: it may have been done, or may yet be."""
        operations = [*success, *failure]
        only_reads = not any("request_range" not in operation for operation in operations)
        request = {"compare": list(compare), "success": list(success), "failure": list(failure)}
        found = await self._call("/v3/kv/txn", request, read=only_reads)
        with _Strict("an answer that makes no sense", _SENSE):
            ranges = [
                [_kv(kv) for kv in response["response_range"].get("kvs", ())]
                for response in found.get("responses", ())
                if "response_range" in response
            ]
            return Txn(bool(found.get("succeeded", False)), int(found["header"]["revision"]), ranges)

    # ---- leases

    async def grant(self, ttl: int) -> int:
        """A lease of so many seconds, or more if etcd's floor is higher."""
        found = await self._call("/v3/lease/grant", {"TTL": str(ttl), "ID": "0"})
        with _Strict("an answer that makes no sense", _SENSE):
            return int(found["ID"])

    async def keep_alive(self, lease: int) -> int:
        """Renew a lease: the seconds it has from when etcd was asked; 0: it is gone."""
        found = await self._call("/v3/lease/keepalive", {"ID": str(lease)})
        with _Strict("an answer that makes no sense", _SENSE):
            return int(found["result"].get("TTL", 0))

    async def revoke(self, lease: int) -> None:
        """End a lease, and delete what hangs on it."""
        await self._call("/v3/lease/revoke", {"ID": str(lease)})

    # ---- watches

    @asynccontextmanager
    async def watch(self, prefix: bytes, revision: int) -> AsyncGenerator[Watch]:
        """Changes of keys with a prefix from a revision on, in order: (revision, events).

        Unknown, while it is read too: it broke. Compacted: it cannot begin there.
        """
        start = {"key": _b64(prefix), "range_end": _b64(end_of(prefix)), "start_revision": str(revision)}
        at, connection = await self._take()
        try:
            with _Strict("/v3/watch", _LINK):
                with trio.fail_after(self._timeout):
                    body = json.dumps({"create_request": start}).encode()
                    await connection.send("/v3/watch", body, {"Grpc-Metadata-hasleader": "true"})
                    await connection.head()
                yield Watch(connection)
        except Unknown:
            self._at = (at + 1) % len(self._endpoints)
            raise
        finally:
            await connection.close()

    async def follow(self, prefix: bytes, *, anew_seconds: float = 10.0) -> AsyncGenerator[Range]:
        """All that there is under a prefix, again after every change, for ever; close it to end.

        Silence of `anew_seconds` is not believed: what there is is read anew then, by a majority. While etcd cannot be
        read nothing comes.
        """
        while True:
            try:
                found = await self.range(prefix, prefix=True)
                yield found
                known = {kv.key: kv for kv in found.kvs}
                async with self.watch(prefix, found.revision + 1) as changes:
                    while True:
                        with trio.move_on_after(anew_seconds) as patience:
                            revision, events = await anext(changes)
                        if patience.cancelled_caught:
                            break
                        for event in events:
                            known.pop(event.kv.key, None)
                            if not event.gone:
                                known[event.kv.key] = event.kv
                        if events:
                            yield Range(revision, list(known.values()))
            except (Unknown, Compacted):
                await trio.sleep(_AGAIN_SECONDS)
