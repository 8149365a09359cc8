"""AMQP URIs: every part, every option, and what is none."""

from __future__ import annotations

import pytest

from rabbitish.client import Parameters, TlsOptions, URIError, parse_uri


@pytest.mark.parametrize(
    ("uri", "parameters"),
    [
        ("amqp://", Parameters()),
        ("amqp://h", Parameters(host="h")),
        ("amqp://h/", Parameters(host="h")),
        ("AMQP://u:p@h:1/v", Parameters("h", 1, "u", "p", "v")),
        ("amqp://u%40:p%2f@[::1]:1/%2Fv%2F", Parameters("::1", 1, "u@", "p/", "/v/")),
        ("amqp://:@h", Parameters("h", user="", password="")),
        ("amqps://h", Parameters("h", 5671, tls=TlsOptions())),
        (
            "amqps://h?cacertfile=/ca&certfile=/c&keyfile=/k&password=s&verify=verify_none&server_name_indication=n",
            Parameters("h", 5671, tls=TlsOptions("/ca", "/c", "/k", "s", verify=False, server_name="n")),
        ),
        ("amqps://h?server_name_indication=disable", Parameters("h", 5671, tls=TlsOptions(server_name=""))),
        ("amqps://h?verify=verify_peer&fail_if_no_peer_cert=true", Parameters("h", 5671, tls=TlsOptions())),
        (
            "amqp://h?heartbeat=5&connection_timeout=1500&channel_max=7",
            Parameters("h", heartbeat=5, connection_timeout=1.5, channel_max=7),
        ),
        (
            "amqp://h/v?auth_mechanism=external&auth_mechanism=plain",
            Parameters("h", vhost="v", auth_mechanisms=("EXTERNAL", "PLAIN")),
        ),
    ],
)
def test_uris(uri: str, parameters: Parameters) -> None:
    assert parse_uri(uri) == parameters


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("http://h", "like amqp://"),
        ("amqp:h", "like amqp://"),
        ("amqp://h#f", "like amqp://"),
        ("amqp://h:x", "no URI"),
        ("amqp://h/a/b", "%2F"),
        ("amqp://h?heartbeat=x", "heartbeat is a whole number"),
        ("amqp://h?heartbeat=70000", "up to 65535"),
        ("amqp://h?channel_max=-1", "channel_max"),
        ("amqp://h?auth_mechanism=magic", "auth_mechanism is one of"),
        ("amqps://h?verify=no", "verify_peer or verify_none"),
        ("amqp://h?verify=verify_none", "amqps"),
        ("amqps://h?verfiy=verify_none", "unknown option 'verfiy'"),
    ],
)
def test_what_is_no_such_uri(uri: str, complaint: str) -> None:
    with pytest.raises(URIError, match=complaint):
        parse_uri(uri)


def test_no_password_is_shown() -> None:
    parameters = parse_uri("amqps://u:secret@h?password=secret")
    assert "secret" not in repr(parameters)
    assert parameters.address == "h:5671"
    assert parse_uri("amqp://[::1]").address == "[::1]:5672"
    with pytest.raises(URIError) as wrong:
        parse_uri("amqp://u:secret@h:port")
    assert "secret" not in str(wrong.value)
