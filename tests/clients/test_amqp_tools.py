"""Debian's amqp-tools (librabbitmq, in C): the broker from a shell, one short-lived connection per command."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

from .support import DEADLINE, UNICODE, large_body, missing

Shell = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def tool(broker_url: str) -> Shell:
    """Runs `amqp-WHAT -u URL ARGUMENTS` with `stdin`; anything but the expected exit code fails with what it said."""

    def run(what: str, *arguments: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        program = shutil.which(f"amqp-{what}")
        if program is None:
            missing(f"amqp-{what} (Debian package amqp-tools) is not installed")
        command = [program, "-u", broker_url, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=DEADLINE, check=False)
        assert done.returncode == code, done.stderr.decode()
        return done

    return run


def test_declare_publish_get_delete(tool: Shell, name: str) -> None:
    assert tool("declare-queue", "-q", name).stdout == f"{name}\n".encode()
    tool("publish", "-r", name, "-b", "Hello")
    tool("publish", "-r", name, "-p", "-C", "text/plain", stdin=UNICODE.encode())
    assert tool("get", "-q", name).stdout == b"Hello"
    assert tool("get", "-q", name).stdout == UNICODE.encode()
    assert tool("get", "-q", name, code=2).stdout == b""
    tool("publish", "-r", name, "-b", "left over")
    assert tool("delete-queue", "-q", name).stdout == b"1\n"


def test_durable_queue_is_not_a_transient_one(tool: Shell, name: str) -> None:
    tool("declare-queue", "-d", "-q", name)
    error = tool("declare-queue", "-q", name, code=1).stderr.decode()
    assert "server channel error 406" in error
    assert f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{name}' in vhost '/'" in error


def test_server_named_queue(tool: Shell) -> None:
    generated = tool("declare-queue", "-d", "-q", "").stdout.decode().strip()
    assert generated.startswith("amq.gen-")
    tool("publish", "-r", generated, "-b", "found")
    assert tool("get", "-q", generated).stdout == b"found"
    tool("delete-queue", "-q", generated)


def test_each_line_is_a_message(tool: Shell, name: str) -> None:
    tool("declare-queue", "-q", name)
    tool("publish", "-r", name, "-l", stdin=b"one\ntwo\nthree\n")
    consumed = tool("consume", "-q", name, "-c", "3", "-p", "1", "cat")
    assert consumed.stdout == b"one\ntwo\nthree\n"
    assert tool("delete-queue", "-q", name).stdout == b"0\n"


def test_consume_declares_and_binds_its_queue(tool: Shell, name: str) -> None:
    """With an exchange given, amqp-consume declares its queue as auto-delete: the queue goes with its consumer."""
    consume = ["-q", name, "-r", f"{name}.#", "-c", "0"]
    error = tool("consume", *consume, "-e", name, "cat", code=1).stderr.decode()
    assert f"NOT_FOUND - no exchange '{name}' in vhost '/'" in error
    tool("consume", *consume, "-e", "amq.topic", "cat")
    assert f"NOT_FOUND - no queue '{name}'" in tool("get", "-q", name, code=1).stderr.decode()


def test_failing_command_leaves_the_message(tool: Shell, name: str) -> None:
    """amqp-consume acknowledges only what its command took; the rest is requeued as its connection ends."""
    tool("declare-queue", "-q", name)
    tool("publish", "-r", name, "-b", "kept")
    assert tool("consume", "-q", name, "-c", "1", "--", "sh", "-c", "cat; exit 1").stdout == b"kept"
    assert tool("get", "-q", name).stdout == b"kept"


def test_missing_queue_and_refused_login(tool: Shell, broker_url: str, name: str) -> None:
    error = tool("get", "-q", name, code=1).stderr.decode()
    assert f"server channel error 404, message: NOT_FOUND - no queue '{name}' in vhost '/'" in error
    error = tool(
        "get", "-u", broker_url.replace("//guest:guest@", "//guest:wrong@"), "-q", name, code=1
    ).stderr.decode()
    assert "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN" in error


def test_large_message(tool: Shell, name: str) -> None:
    body = large_body(1 << 20)
    tool("declare-queue", "-q", name)
    tool("publish", "-r", name, stdin=body)
    assert tool("get", "-q", name).stdout == body
