"""Definitions that rabbitish has exported start a RabbitMQ, and what that exports starts a rabbitish: nothing is lost.

Both are started here, whatever broker the other cases are for; where RabbitMQ is not installed there is nothing to try.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / ".ci/rabbitmq.sh"
RABBITISH = [sys.executable, "-m", "rabbitish"]
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}

GIVEN: dict[str, Any] = {
    "users": [
        {"name": "joe", "password": "secret", "tags": ["management", "policymaker"], "limits": {"max-channels": 9}},
        {"name": "cert", "tags": []},
    ],
    "vhosts": [
        {"name": "/", "description": "the first"},
        {"name": "tëam 'x'", "metadata": {"description": "ours", "tags": ["a", "b"], "default_queue_type": "classic"}},
    ],
    "permissions": [
        {"user": "joe", "vhost": "/", **EVERYTHING},
        {"user": "joe", "vhost": "tëam 'x'", "configure": "^(?!x)", "write": "\\.", "read": ""},
    ],
    "topic_permissions": [{"user": "joe", "vhost": "/", "exchange": "amq.topic", "write": "^{username}", "read": ".*"}],
    "parameters": [
        {"vhost": "/", "component": "vhost-limits", "name": "limits", "value": {"max-queues": 50}},
        {
            "vhost": "/",
            "component": "operator_policy",
            "name": "cap",
            "value": {"pattern": ".*", "definition": {"max-length": 1000}, "priority": 0, "apply-to": "queues"},
        },
    ],
    "global_parameters": [{"name": "cluster_name", "value": "bunny@example"}],
    "policies": [
        {
            "vhost": "/",
            "name": "dlx",
            "pattern": "^q$",
            "definition": {"dead-letter-exchange": "amq.fanout", "message-ttl": 60000},
            "priority": 3,
            "apply-to": "queues",
        }
    ],
    "exchanges": [
        {"vhost": "/", "name": "e", "type": "topic", "arguments": {"alternate-exchange": "f"}},
        {"vhost": "/", "name": "f", "type": "fanout", "durable": False, "auto_delete": True},
        {"vhost": "/", "name": "h", "type": "headers"},
    ],
    "queues": [
        {"vhost": "/", "name": "q", "arguments": {"x-max-priority": 3, "x-overflow": "reject-publish"}},
        {"vhost": "/", "name": "höflich \"q' \\ \t", "durable": False, "auto_delete": True},
        {"vhost": "tëam 'x'", "name": "q"},
        {"vhost": "/", "name": "kept", "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 3}},
    ],
    "bindings": [
        {"vhost": "/", "source": "e", "destination": "q", "destination_type": "queue", "routing_key": "a.#"},
        {"vhost": "/", "source": "e", "destination": "f", "destination_type": "exchange", "routing_key": "b"},
        {
            "vhost": "/",
            "source": "h",
            "destination": "q",
            "destination_type": "queue",
            "routing_key": "",
            "arguments": {"x-match": "any", "n": 5, "f": 1.5, "t": {"a": [1, "x", True]}},
        },
    ],
}


@contextmanager
def rabbitish(folder: Path, definitions: Path) -> Iterator[Path]:
    """A rabbitish that has started with definitions; its data directory."""
    data = folder / definitions.stem
    command = [*RABBITISH, "serve", "--listen", "amqp://127.0.0.1:0", "--definitions", str(definitions)]
    command += ["--data-dir", str(data), "--set", "password_hashing_module=rabbit_password_hashing_sha256"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        try:
            assert process.stdout is not None and b"listening" in process.stdout.readline()
            yield data
        finally:
            process.terminate()


def exported(data: Path, to: Path) -> Path:
    subprocess.run([*RABBITISH, "export_definitions", str(to), "--data-dir", str(data)], check=True, cwd=REPOSITORY)
    return to


@contextmanager
def rabbitmq(definitions: Path) -> Iterator[tuple[int, Path]]:
    """A RabbitMQ that has started with definitions; its port and its folder."""
    home = Path(tempfile.mkdtemp(prefix="rabbitish-definitions-"))
    environ = {**os.environ, "RABBITISH_DEFINITIONS": str(definitions)}
    try:
        port = subprocess.check_output([SCRIPT, "start", home], env=environ, text=True)
        yield int(port), home
    finally:
        subprocess.run([SCRIPT, "stop", home], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("rabbitmq-server") is None, reason="RabbitMQ is not installed")
def test_from_rabbitish_to_rabbitmq_and_back(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if request.config.getoption("--broker") or request.config.getoption("--through-mirror"):
        pytest.skip("starts what it needs itself; tried where the suite is for rabbitish alone")
    given = tmp_path / "given.json"
    given.write_text(json.dumps(GIVEN))
    with rabbitish(tmp_path, given) as data:
        ours = exported(data, tmp_path / "ours.json")
    with rabbitmq(ours) as (port, home):
        theirs = tmp_path / "theirs.json"
        theirs.write_bytes(subprocess.check_output([SCRIPT, "ctl", home, "--quiet", "export_definitions", "-"]))
        parameters = pika.ConnectionParameters("127.0.0.1", port, credentials=pika.PlainCredentials("joe", "secret"))
        with pika.BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.basic_publish("e", "a.b", b"by topic", mandatory=True)
            channel.basic_publish("h", "", b"by header", pika.BasicProperties(headers={"n": 5}), mandatory=True)
            assert [channel.basic_get("q", auto_ack=True)[2] for _ in range(2)] == [b"by topic", b"by header"]
    with rabbitish(tmp_path, theirs) as data:
        again = exported(data, tmp_path / "again.json")
    assert json.loads(again.read_text()) == json.loads(ours.read_text())
