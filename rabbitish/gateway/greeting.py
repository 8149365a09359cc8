"""The handshake as it passes by: who the client says it is, and what both sides agree on.

Passwords are not looked at and not kept. What the client says counts for something only once the leader has answered
connection.open-ok, which it does after it has verified it.
"""

from __future__ import annotations

from rabbitish.errors import ConnectionFailure
from rabbitish.gateway.passport import Passport
from rabbitish.wire import methods
from rabbitish.wire.method import Method
from rabbitish.wire.table import decode_table_body


class Greeting:
    """See the module."""

    def __init__(self, certificate_name: str | None = None) -> None:
        self._certificate_name = certificate_name
        self._start = methods.ConnectionStartOk()
        self._user: str | None = None
        self._tune = methods.ConnectionTuneOk()
        self._vhost = ""
        self._said: set[type[Method]] = set()
        self._twice = False

    def heard(self, method: Method) -> None:
        """The client says something on channel 0. What it says twice the leader may have heard once."""
        self._twice |= type(method) in self._said
        self._said.add(type(method))
        if isinstance(method, methods.ConnectionStartOk):
            external = method.mechanism == "EXTERNAL"
            self._user = self._certificate_name if external else _user(method.mechanism, method.response)
            self._start = methods.ConnectionStartOk(
                client_properties=method.client_properties, mechanism=method.mechanism
            )
        elif isinstance(method, methods.ConnectionTuneOk):
            self._tune = method
        elif isinstance(method, methods.ConnectionOpen):
            self._vhost = method.virtual_host

    @property
    def whole(self) -> bool:
        """Whether the client has said all that comes before it may open channels."""
        return methods.ConnectionOpen in self._said

    @property
    def frame_max(self) -> int:
        """What was agreed on, in bytes."""
        return self._tune.frame_max

    @property
    def heartbeat(self) -> int:
        """What was agreed on, in seconds; 0: there are none."""
        return self._tune.heartbeat

    def capable(self, of: str) -> bool:
        """Whether the client has declared a capability."""
        capabilities = self._start.client_properties.get("capabilities")
        return isinstance(capabilities, dict) and capabilities.get(of) is True

    def passport(self, names: frozenset[str], mark: bytes) -> bytes:
        """For the next leader. ValueError: there can be none, and why."""
        if self._user is None or self._twice:
            raise ValueError("it is not known here who the client is")
        tune = self._tune
        return Passport(
            self._user,
            self._start.mechanism,
            self._vhost,
            self._start.client_properties,
            tune.channel_max,
            tune.frame_max,
            tune.heartbeat,
            names,
            mark,
        ).encode()


def _user(mechanism: str, response: bytes) -> str | None:
    """Who logs in, if these are mechanisms that work without a certificate."""
    if mechanism == "PLAIN":
        parts = response.split(b"\0")
        return parts[1].decode("utf-8", "surrogateescape") if len(parts) == 3 else None
    if mechanism == "AMQPLAIN":
        try:
            name = decode_table_body(response, 0, len(response)).get("LOGIN")
        except ConnectionFailure:
            return None
        return name if isinstance(name, str) else None
    return "" if mechanism == "ANONYMOUS" else None
