"""The command `rabbitish perf`: what its options mean, what goes to stdout and stderr, its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rabbitish.cli import main
from rabbitish.perf import command
from rabbitish.perf.options import Login, Options
from rabbitish.wire.properties import Properties

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 30


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["perf", *arguments])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """The options of each run that would be started."""
    found: list[Options] = []
    monkeypatch.setattr(command, "_run", lambda options, **_: found.append(options))
    return found


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ("", Options()),
        ("-h amqp://me:secret@broker:1/v", Options(login=Login("broker", 1, "me", "secret", "v"))),
        ("--uri amqp://broker", Options(login=Login("broker"))),
        ("-x 2 -y 3 -s 100", Options(producers=2, consumers=3, size=100)),
        ("-x2 -y0", Options(producers=2, consumers=0)),
        ("--producers 2 --consumers 3 --size 100", Options(producers=2, consumers=3, size=100)),
        ("-r 2.5 -c 10", Options(rate=2.5, confirm=10)),
        ("--rate 5000 --confirm 10", Options(rate=5000, confirm=10)),
        ("-a", Options(autoack=True)),
        ("--autoack", Options(autoack=True)),
        ("-A 10 -q 20 -Q 30", Options(multi_ack_every=10, qos=20, global_qos=30)),
        (
            "--multi-ack-every 10 --qos 20 --global-qos 30",
            Options(multi_ack_every=10, qos=20, global_qos=30),
        ),
        ("-f persistent", Options(persistent=True)),
        ("--persistent", Options(persistent=True)),
        ("--flag mandatory --flag persistent", Options(persistent=True, mandatory=True)),
        ("-u q -e x -t topic -k a.b", Options(queue="q", exchange="x", exchange_type="topic", routing_key="a.b")),
        (
            "--queue q --exchange x --type topic --routing-key a.b",
            Options(queue="q", exchange="x", exchange_type="topic", routing_key="a.b"),
        ),
        ("-u q%d --queues 3", Options(queue_pattern="q%%d-%d", queue_pattern_to=3)),
        ("-qp q%d -qpf 2 -qpt 3", Options(queue_pattern="q%d", queue_pattern_from=2, queue_pattern_to=3)),
        (
            "--queue-pattern q%d --queue-pattern-from 2 --queue-pattern-to 3",
            Options(queue_pattern="q%d", queue_pattern_from=2, queue_pattern_to=3),
        ),
        (
            "-qa x-max-length=10,x-overflow=reject-publish",
            Options(queue_args={"x-max-length": 10, "x-overflow": "reject-publish"}),
        ),
        ("-ad false", Options(auto_delete=False)),
        ("--auto-delete true", Options(auto_delete=True)),
        ("--durable", Options(durable=True)),
        ("--transient --persistent", Options(durable=False, persistent=True)),
        ("-p -u q", Options(predeclared=True, queue="q")),
        ("--predeclared -u q", Options(predeclared=True, queue="q")),
        ("-mp priority=5,a=b", Options(properties=Properties(priority=5, headers={"a": "b"}))),
        ("--message-properties type=t", Options(properties=Properties(type="t"))),
        ("--priority 9", Options(priority=9)),
        ("-C 10 -D 20 -z 1.5", Options(pmessages=10, cmessages=20, time=1.5)),
        ("--pmessages 10 --cmessages 20 --time 2", Options(pmessages=10, cmessages=20, time=2)),
        ("--drain -C 1", Options(drain=True, pmessages=1)),
        ("-ms -i 5", Options(use_millis=True, interval=5)),
        ("--use-millis --interval 0.5 --json --quiet", Options(use_millis=True, interval=0.5)),
    ],
)
def test_options(asked: list[Options], arguments: str, options: Options) -> None:
    result = run(*arguments.split())
    assert (result.exit_code, result.output) == (0, "")
    assert asked == [options]


def test_the_default_exchange(asked: list[Options]) -> None:
    assert run("-e", "", "-u", "q").exit_code == 0
    assert asked == [Options(exchange="", queue="q")]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("-x 0 -y 0", "neither producers nor consumers: there is nothing to do."),
        ("-x -1", "-1 is not in the range"),
        ("-x many", "'many' is not a valid integer"),
        ("-r -5", "-5.0 is not in the range"),
        ("-h localhost", "'localhost' is not like amqp://user:password@host:port/vhost."),
        ("-f durable", "'durable' is not one of"),
        ("-qa x-max-length", "'x-max-length' is not like key=value,key=value."),
        ("-mp priority=high", "priority must be a number, not 'high'."),
        ("-ad perhaps", "'perhaps' is not a valid boolean"),
        ("--queues 3", "--queues numbers the queues of --queue, and nothing else."),
        ("--queues 3 -u q -qp q%d", "--queues numbers the queues of --queue, and nothing else."),
        ("--drain", "--drain needs a number of messages (-C) or a time to publish for (-z)."),
        ("--colour", "No such option"),
        ("queue", "unexpected extra argument"),
    ],
)
def test_options_that_cannot_be_used(asked: list[Options], arguments: str, complaint: str) -> None:
    result = run(*arguments.split())
    assert (result.exit_code, result.stdout, asked) == (2, "", [])
    assert complaint in result.stderr


def test_every_option_is_in_the_document() -> None:
    text = (REPOSITORY / "docs/PERF_TOOL.md").read_text()
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| `-")]
    documented = [set(re.findall(r"`(-[-\w]+)`", row)) for row in rows]
    assert documented == [{*each.opts, *each.secondary_opts} for each in command.perf.params if each.name != "help"]


def test_what_the_document_runs_is_a_run(asked: list[Options]) -> None:
    lines = re.findall(
        r"^rabbitish perf (.*?)(?: +#.*)?$", (REPOSITORY / "docs/PERF_TOOL.md").read_text(), re.MULTILINE
    )
    for line in lines:
        assert run(*line.split()).exit_code == 0, line
    assert len(asked) == len(lines) > 5


@pytest.mark.parametrize("option", ["--help", "-?"])
def test_help(option: str) -> None:
    result = run(option)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: main perf ")
    assert CliRunner().invoke(main, ["--help"]).stdout.count("\n  perf ") == 1


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import rabbitish.cli", {"rabbitish.perf", "trio"}),
        ("import rabbitish.perf.command", {"rabbitish.server", "rabbitish.session", "trio"}),
    ],
)
def test_what_is_not_needed_is_not_loaded(code: str, unwanted: set[str]) -> None:
    code = f"{code}, sys; print(*{unwanted!r} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- Against a broker -------------------------------------------------------------------------------------------------


class Broker:
    """`rabbitish serve` on a free port."""

    def __init__(self) -> None:
        arguments = ["serve", "--ephemeral", "--listen", "amqp://127.0.0.1:0", "--log-level", "error"]
        self.process = start(*arguments, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip().rpartition("amqp://")[2]
        assert self.address.startswith("127.0.0.1:")
        self.uri = f"amqp://{self.address}"

    def stop(self) -> None:
        with self.process:
            self.process.terminate()


def environ() -> dict[str, str]:
    """Ours, without settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RABBITISH_")}


def start(*arguments: str, **pipes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rabbitish", *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, env=environ(), text=True, **pipes)


def perf(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A run from its start to its end."""
    command = [sys.executable, "-m", "rabbitish", "perf", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=environ(), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    """Where a broker listens."""
    broker = Broker()
    yield broker.uri
    broker.stop()


def test_a_summary(uri: str) -> None:
    done = perf("-h", uri, "-C", "100", "-c", "10")
    assert (done.returncode, done.stderr) == (0, "")
    names = ["published", "confirmed", "consumed", "latency", "confirm latency"]
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == names
    assert "published:       100 messages in " in done.stdout
    assert "consumed:        100 messages in " in done.stdout


def test_progress_and_one_object(uri: str) -> None:
    done = perf("-h", uri, "-C", "60", "-r", "100", "-i", "0.1", "--json")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert (result["published"], result["consumed"], result["error"]) == (60, 60, None)
    assert result["latency_us"]["p99.9"] >= result["latency_us"]["p50"] > 0
    lines = done.stderr.splitlines()
    assert lines
    assert all(line.startswith("time 0.") and "sent: " in line and "received: " in line for line in lines)


def test_quiet(uri: str) -> None:
    done = perf("-h", uri, "-C", "60", "-r", "100", "-i", "0.1", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("path", "arguments", "complaint"),
    [
        ("", ["-p", "-u", "missing"], "404 NOT_FOUND - no queue 'missing' in vhost '/'\n"),
        ("/elsewhere", [], "530 NOT_ALLOWED - vhost elsewhere not found\n"),
        ("", ["-e", "amq.missing", "-y", "0", "-C", "1", "-c", "1"], "producer 1: 404 NOT_FOUND - no exchange"),
    ],
)
def test_what_the_broker_refuses(uri: str, path: str, arguments: list[str], complaint: str) -> None:
    done = perf("-h", uri + path, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"rabbitish: {complaint}")
    assert done.stderr.count("\n") == 1


def test_a_login_that_is_refused(uri: str) -> None:
    done = perf("-h", uri.replace("//", "//guest:wrong@"), "-C", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rabbitish: 403 ACCESS_REFUSED - Login was refused")
    assert "wrong" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    done = perf("-h", f"amqp://{address}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"rabbitish: cannot connect to {address}: Connection refused\n"


def test_no_such_host() -> None:
    done = perf("-h", "amqp://host.invalid")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("rabbitish: cannot connect to host.invalid:5672: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_somebody_stops_it(uri: str, number: signal.Signals) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start("perf", "-h", uri, "-r", "100", "-i", "0.1", "--json", **pipes) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("time 0.1 s, sent: ")
        process.send_signal(number)
        stdout, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert json.loads(stdout)["published"] > 0


def test_the_broker_goes_away() -> None:
    """What was measured until then is told all the same."""
    broker = Broker()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start("perf", "-h", broker.uri, "-r", "100", "-i", "0.1", "--json", **pipes) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("time 0.1 s, sent: ")
        broker.stop()
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    result = json.loads(stdout)
    assert result["published"] > 0
    assert stderr.splitlines()[-1] == f"rabbitish: {result['error']}"
    assert "320 CONNECTION_FORCED" in result["error"]
