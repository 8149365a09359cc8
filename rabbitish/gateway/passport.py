"""What a leader must know of a session that it did not see begin: who the client is, and what was agreed with it.

It goes from node to node inside a Relay frame, behind the proof of the cluster's secret, and is believed: the client
had logged in at an earlier leader. There is no password in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rabbitish.errors import ConnectionFailure
from rabbitish.values import Table
from rabbitish.wire.table import decode_table, encode_table

_MARK = "rabbitish session"


class Passport(NamedTuple):
    """An open session, as a node vouches for it."""

    user: str
    """Empty for the mechanism ANONYMOUS: whoever that means."""
    mechanism: str
    vhost: str
    client_properties: Table
    channel_max: int
    frame_max: int
    heartbeat: int
    """Seconds."""
    names: frozenset[str] = frozenset()
    """Names made up by an earlier leader, which the session may declare again."""
    mark: bytes = b""
    """What the session is known by, to every leader."""

    def encode(self) -> bytes:
        """As bytes, for `decode_passport`."""
        properties = encode_table(self.client_properties)  # by itself, since it may be as deep as tables get
        more: Table = {"client_properties": properties, "names": [*sorted(self.names)], "is": _MARK}
        return encode_table({**self._asdict(), **more})


_TYPES: Mapping[str, type] = {
    "user": str,
    "mechanism": str,
    "vhost": str,
    "client_properties": bytes,
    "channel_max": int,
    "frame_max": int,
    "heartbeat": int,
    "names": list,
    "mark": bytes,
}


def decode_passport(raw: bytes) -> Passport:
    """The passport that was encoded. ValueError: it is none."""
    try:
        found, _ = decode_table(raw, 0)
        fields: dict[str, Any] = {key: found.get(key) for key in _TYPES}
        if found.get("is") != _MARK or not all(isinstance(fields[key], kind) for key, kind in _TYPES.items()):
            raise ValueError("no passport")
        fields["client_properties"], _ = decode_table(fields["client_properties"], 0)
    except ConnectionFailure as error:
        raise ValueError(f"a passport that cannot be read: {error}") from error
    return Passport(**{**fields, "names": frozenset(map(str, fields["names"]))})
