"""The command: options, exit codes, one line for every mistake, and a broker that starts, says so and stops."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
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
from rabbitish.wire import methods
from tests.server.crash import Peer

REPOSITORY = Path(__file__).parents[1]
STOP_SECONDS = 20
NOWHERE = {"HOME": None, "XDG_STATE_HOME": None}


def run(*arguments: str, **environ: str | None) -> Result:
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


def test_options_of_tls() -> None:
    files = ["--certfile", "c.pem", "--keyfile", "k.pem", "--cacertfile", "ca.pem"]
    said = shown("--listen", "amqps://a", *files, "--set", "ssl_options.verify=verify_peer")
    assert said["listen"] == ["amqps://a"]
    assert [said[f"ssl_options_{name}"] for name in ("certfile", "keyfile", "cacertfile", "verify")] == [
        "c.pem",
        "k.pem",
        "ca.pem",
        "verify_peer",
    ]


def test_options_of_a_cluster() -> None:
    where = ["--cluster", "etcd://e:1/c", "--data-dir", "d", "--cluster-listen", "0.0.0.0:0"]
    said = shown("--node-name", "a", *where, "--cluster-advertise", "h", "--cluster-min-in-sync", "2")
    others = ("cluster_name", "cluster_ssl")
    assert [said[key] for key in said if key.startswith("cluster_") and not key.startswith(others)] == [
        "0.0.0.0:0",
        "h",
        2,
        5,
    ]
    assert (said["cluster"], said["node_name"]) == ("etcd://e:1/c", "a")


def test_without_h11_a_cluster_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", {}.get)
    result = run("serve", "--cluster", "etcd://127.0.0.1:1", "--data-dir", str(tmp_path))
    assert (result.exit_code, result.stderr) == (
        2,
        "rabbitish: --cluster needs h11, to speak to etcd: pip install h11\n",
    )


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
        (["--listen", "amqps://a"], "--listen: listen has amqps://, which needs ssl_options_certfile"),
        (["--set", "ssl_options.depth=1"], '--set: unknown key "ssl_options_depth"'),
        (["--host", "a b"], "--host: listen must be like amqp://127.0.0.1:5672"),
        (["--host", "a b", "--port", "1"], "--host and --port: listen must be like"),
        (["--config", "/nonexistent/x.toml"], "/nonexistent/x.toml: cannot be read: No such file or directory"),
        (["--cluster", "etcd://a"], "--cluster: cluster needs a data_dir, one for each node"),
        (["--cluster", "etcd://a", "--ephemeral"], "--cluster: cluster needs a data_dir, one for each node"),
        (["--cluster", "a", "--data-dir", "x"], "--cluster: cluster must be like etcd://127.0.0.1:2379/rabbitish"),
        (["--node-name", "a b"], "--node-name: node_name must name it in up to 128"),
        (["--cluster-listen", "a"], "--cluster-listen: cluster_listen must have HOST:PORT"),
        (["--cluster-advertise", "a:b"], "--cluster-advertise: cluster_advertise must have HOST[:PORT]"),
        (["--cluster-min-in-sync", "x"], '--cluster-min-in-sync: cluster_min_in_sync must be a whole number, not "x"'),
        (["--set", "ephemeral=true", "--data-dir", "x"], "--set: ephemeral must be false with a data_dir ('x')"),
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
        (["--data-dir", "x", "--ephemeral"], "--data-dir says where to keep data, --ephemeral to keep none"),
        (["--data-dir", ""], "--data-dir needs the name of a folder"),
        (["--port", "65536"], "65536 is not in the range"),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["--prot", "1"], "No such option"),
    ],
)
def test_a_wrong_option_shows_the_usage(arguments: list[str], message: str) -> None:
    result = run("serve", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("home", "arguments", "data_dir", "source"),
    [
        ({"HOME": "/home/me"}, [], "/home/me/.local/state/rabbitish", "default in HOME"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": "/state"}, [], "/state/rabbitish", "default in XDG_STATE_HOME"),
        ({"HOME": "/home/me", "XDG_STATE_HOME": "state"}, [], "/home/me/.local/state/rabbitish", "default in HOME"),
        ({"HOME": "/home/me"}, ["--data-dir", "here"], "here", "--data-dir"),
        ({"HOME": "/home/me"}, ["--set", "data_dir="], "/home/me/.local/state/rabbitish", "default in HOME"),
        ({"HOME": "/home/me"}, ["--ephemeral"], "", "default"),
        ({"HOME": "/home/me"}, ["--set", "ephemeral=yes"], "", "default"),
        ({"HOME": "/home/me", "RABBITISH_EPHEMERAL": "1"}, [], "", "default"),
        ({"HOME": "/home/me", "RABBITISH_EPHEMERAL": "1"}, ["--data-dir", "here"], "here", "--data-dir"),
        ({"RABBITISH_DATA_DIR": "/data"}, [], "/data", "RABBITISH_DATA_DIR"),
        ({"RABBITISH_DATA_DIR": "/data"}, ["--ephemeral"], "", "default"),
    ],
)
def test_where_data_is_kept(home: dict[str, str], arguments: list[str], data_dir: str, source: str) -> None:
    result = run("config", "show", *arguments, **{**NOWHERE, **home})
    assert result.exit_code == 0, result.output
    assert f'data_dir = "{data_dir}"  # {source}\n' in result.stdout
    assert tomllib.loads(result.stdout)["ephemeral"] is (data_dir == "")


@pytest.mark.parametrize("command", [["serve"], ["config", "show"]])
@pytest.mark.parametrize("home", [{}, {"HOME": ""}, {"HOME": "home", "XDG_STATE_HOME": "state"}])
def test_no_home(command: list[str], home: dict[str, str]) -> None:
    result = run(*command, **{**NOWHERE, **home})
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "rabbitish: neither XDG_STATE_HOME nor HOME says where to keep what is durable; "
        "name another folder with --data-dir, or keep nothing with --ephemeral\n"
    )


def test_what_runs_no_broker_does_not_load_one() -> None:
    code = (
        "import rabbitish.cli, rabbitish.server.settings_file, sys; print(*{'trio', 'asyncio', 'ssl'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- A broker ---------------------------------------------------------------------------------------------------------


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home of whoever starts a broker."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start `python -m rabbitish serve` with these options; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("RABBITISH_", "XDG_"))}
    environ["HOME"] = str(home)

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


def stop(process: subprocess.Popen[str]) -> str:
    """End a broker as it should end; its log."""
    process.terminate()
    stdout, stderr = process.communicate(timeout=STOP_SECONDS)
    assert (process.returncode, stdout) == (0, "")
    return stderr


def test_what_is_durable_is_kept_in_the_home(start: Start, home: Path) -> None:
    folder = home / ".local/state/rabbitish"
    for passive in (False, True):
        process = start("--listen", "amqp://127.0.0.1:0")
        peer = Peer(*ports(process))
        declared = peer.ask(methods.QueueDeclare(queue="q", durable=True, passive=passive))
        assert isinstance(declared.method, methods.QueueDeclareOk)
        peer.close()
        log = stop(process)
        assert f"info what is durable is kept on disk data_dir={folder}\n" in log
    assert [path for path in home.rglob("*") if path.is_file() and path.parent != folder] == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "messages are nobody else's business"


def test_ephemeral_leaves_nothing(start: Start, home: Path) -> None:
    process = start("--ephemeral", "--listen", "amqp://127.0.0.1:0")
    peer = Peer(*ports(process))
    assert isinstance(peer.ask(methods.QueueDeclare(queue="q", durable=True)).method, methods.QueueDeclareOk)
    peer.close()
    assert "info nothing is kept on disk, nothing survives this process\n" in stop(process)
    assert list(home.iterdir()) == []


def test_a_second_broker_in_the_same_home_is_refused_and_told_what_to_do(start: Start, home: Path) -> None:
    first = start("--listen", "amqp://127.0.0.1:0")
    ports(first)
    second = start("--listen", "amqp://127.0.0.1:0", "--log-level", "error")
    stdout, stderr = second.communicate(timeout=STOP_SECONDS)
    assert (second.returncode, stdout) == (1, "")
    assert stderr == (
        f"rabbitish: {home}/.local/state/rabbitish is in use by another broker; "
        "name another folder with --data-dir, or keep nothing with --ephemeral\n"
    )
    for way_out in (["--data-dir", str(home / "other")], ["--ephemeral"]):
        other = start("--listen", "amqp://127.0.0.1:0", *way_out)
        ports(other)
        stop(other)
    stop(first)


def test_the_module_and_the_command_are_the_same() -> None:
    command = [sys.executable, "-m", "rabbitish", "--version"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == f"rabbitish {__version__}\n"
