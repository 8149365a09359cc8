"""The command: options, exit codes, one line for every mistake, and a broker that starts, says so and stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rabbitish import __version__
from rabbitish.cli import main
from rabbitish.config import Settings

REPOSITORY = Path(__file__).parents[1]
STOP_SECONDS = 20


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"RABBITISH_CONFIG": None, **environ})


def shown(*arguments: str, **environ: str) -> dict[str, object]:
    """The settings that `config show` prints."""
    result = run("config", "show", *arguments, **environ)
    assert result.exit_code == 0, result.output
    return tomllib.loads(result.stdout)


# --- Options ----------------------------------------------------------------------------------------------------------


def test_version() -> None:
    assert run("--version").stdout == f"rabbitish {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["config", "--help"], ["config", "show", "-h"]])
def test_help(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    ("arguments", "listen"),
    [
        ([], list(Settings().listen)),
        (["--port", "5673"], ["amqp://localhost:5673"]),
        (["--host", "0.0.0.0"], ["amqp://0.0.0.0:5672"]),
        (["--host", "::", "--port", "0"], ["amqp://[::]:0"]),
        (["--listen", "amqp://a:1"], ["amqp://a:1"]),
        (["--listen", "amqp://a:1", "--listen", "amqp://[::1]:2"], ["amqp://a:1", "amqp://[::1]:2"]),
        (["--set", "listen=amqp://a:1,amqp://b:2"], ["amqp://a:1", "amqp://b:2"]),
        (["--set", "listen=amqp://a:1", "--port", "9"], ["amqp://localhost:9"]),
    ],
)
def test_where_to_listen(arguments: list[str], listen: list[str]) -> None:
    assert shown(*arguments)["listen"] == listen


def test_options_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rabbitish.toml"
    path.write_text('log_level = "error"\nchannel_max = 1\nheartbeat_seconds = 1\n')
    environ = {"RABBITISH_CONFIG": str(path), "RABBITISH_LOG_LEVEL": "warning", "RABBITISH_CHANNEL_MAX": "2"}
    settings = shown("--log-level", "debug", **environ)
    assert (settings["log_level"], settings["channel_max"], settings["heartbeat_seconds"]) == ("debug", 2, 1)
    text = run("config", "show", "--config", str(path)).stdout
    assert f'log_level = "error"  # {path}:1\n' in text
    assert "read_bytes = 131072  # default\n" in text


@pytest.mark.parametrize("command", [["serve"], ["config", "show"]])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "channel_max=0"], "--set: channel_max must be at least 1, not 0"),
        (["--set", "chanel_max=1"], '--set: unknown key "chanel_max"; did you mean channel_max?'),
        (["--listen", "127.0.0.1"], "--listen: listen must be like amqp://127.0.0.1:5672"),
        (["--host", "a b"], "--host: listen must be like amqp://127.0.0.1:5672"),
        (["--host", "a b", "--port", "1"], "--host and --port: listen must be like"),
        (["--config", "/nonexistent/x.toml"], "/nonexistent/x.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(command: list[str], arguments: list[str], message: str) -> None:
    result = run(*command, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"rabbitish: {message}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "channel_max"], "--set takes KEY=VALUE, not 'channel_max'."),
        (["--listen", "amqp://a", "--port", "1"], "--listen already says host and port"),
        (["--port", "65536"], "65536 is not in the range"),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["--prot", "1"], "No such option"),
    ],
)
def test_a_wrong_option_shows_the_usage(arguments: list[str], message: str) -> None:
    result = run("serve", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_what_runs_no_broker_does_not_load_one() -> None:
    code = (
        "import rabbitish.cli, rabbitish.server.settings_file, sys; print(*{'trio', 'asyncio', 'ssl'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- A broker ---------------------------------------------------------------------------------------------------------


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `python -m rabbitish serve` with these options; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RABBITISH_")}

    def serve(*options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "rabbitish", "serve", *options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=REPOSITORY, env=environ, text=True, **pipes))
        return started[-1]

    yield serve
    for process in started:
        with process:
            process.kill()


def ports(process: subprocess.Popen[str]) -> list[int]:
    """The ports in the line that says the broker is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    url = r"amqp://127\.0\.0\.1:\d+"
    assert re.fullmatch(rf"rabbitish {re.escape(__version__)} listening on {url}(, {url})*\n", line), line
    return [int(port) for port in re.findall(r":(\d+)", line)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_broker_says_where_it_listens_and_stops_when_told(start: Start, number: signal.Signals) -> None:
    process = start("--listen", "amqp://127.0.0.1:0", "--listen", "amqp://127.0.0.1:0")
    first, second = ports(process)
    assert first != second
    for port in (first, second):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"AMQP\x00\x00\x09\x01")
            assert client.recv(1) == b"\x01"  # a method frame: connection.start
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=STOP_SECONDS)
    assert (process.returncode, stdout) == (0, "")
    assert "Traceback" not in stderr


def test_a_port_that_is_taken_is_one_line_and_exit_code_1(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        process = start("--listen", f"amqp://127.0.0.1:{port}", "--log-level", "error")
        stdout, stderr = process.communicate(timeout=STOP_SECONDS)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.startswith("rabbitish: ")
    assert stderr.count("\n") == 1
    assert f"127.0.0.1:{port}" in stderr
    assert "in use" in stderr


def test_the_module_and_the_command_are_the_same() -> None:
    command = [sys.executable, "-m", "rabbitish", "--version"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == f"rabbitish {__version__}\n"
