"""The operator's commands, as they are typed; what they print, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from server.crash import Process

from rabbitish.cli import main
from rabbitish.server.control import COMMANDS as KNOWN
from rabbitish.tools.control import table
from rabbitish.tools.operator import COMMANDS

ACCESS = (Path(__file__).parents[1] / "docs/ACCESS.md").read_text()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a broker that runs."""
    path = tmp_path_factory.mktemp("operator") / "data"
    process = Process(path, "--set", "password_cost=4")
    yield path
    process.stop()


def run(data_dir: Path | None, *arguments: str, stdin: str = "") -> Result:
    given = [*arguments, "--data-dir", str(data_dir)] if data_dir is not None else arguments
    return CliRunner().invoke(main, given, input=stdin)


def lines(result: Result) -> list[str]:
    """What was printed, which must be all."""
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_every_command_there_is_can_be_typed() -> None:
    assert [command.name for command in COMMANDS] and {command.name for command in COMMANDS} == KNOWN.keys()
    for command in COMMANDS:
        assert command.name is not None and command.name in ACCESS, command.name


def test_the_guides_session(data_dir: Path) -> None:
    for line in (
        ["add_vhost", "team", "--description", "ours", "--tags", "a, b"],
        ["set_permissions", "-p", "team", "guest", ".*", ".*", ".*"],
    ):
        assert lines(run(data_dir, *line)) == []
    assert lines(run(data_dir, "add_user", "joe", stdin="secret\n")) == []
    assert lines(run(data_dir, "set_permissions", "-p", "team", "joe", "^jobs", ".*", "")) == []
    assert lines(run(data_dir, "list_permissions", "-p", "team")) == [
        "user   configure  write  read",
        "guest  .*         .*     .*",
        "joe    ^jobs      .*",
    ]
    assert lines(run(data_dir, "list_vhosts", "name", "tags")) == ["name  tags", "/", "team  a, b"]
    assert lines(run(data_dir, "set_user_tags", "joe", "management", "monitoring")) == []
    assert lines(run(data_dir, "list_users")) == [
        "user   tags",
        "guest  administrator",
        "joe    management, monitoring",
    ]
    listed = json.loads(run(data_dir, "list_exchanges", "-p", "team", "--json").output)
    assert {"name": "amq.topic", "type": "topic"}.items() <= {e["name"]: e for e in listed}["amq.topic"].items()
    assert lines(run(data_dir, "set_user_limits", "joe", '{"max-channels": 3}')) == []
    assert lines(run(data_dir, "list_user_limits")) == ["user  limits", 'joe   {"max-channels": 3}']
    assert "data_dir" in run(data_dir, "status").output
    assert lines(run(data_dir, "close_all_connections", "bye")) == ["0"]
    assert lines(run(data_dir, "list_queues")) == ["name  messages"]
    assert lines(run(data_dir, "delete_user", "joe")) == []
    assert lines(run(data_dir, "delete_vhost", "team")) == []


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["delete_user", "nobody"], 1, 'User "nobody" does not exist'),
        (["add_user", "guest", "x"], 1, 'User "guest" already exists'),
        (["set_permissions", "guest", "(", "", ""], 1, 'invalid regular expression "(": missing ) at offset 1'),
        (["list_queues", "-p", "nosuch"], 1, "Virtual host 'nosuch' does not exist"),
        (["list_users", "nosuch"], 2, "there is no column nosuch; there are tags, user"),
        (["set_user_limits", "guest", "7"], 2, "limits are a JSON object"),
        (["set_user_limits", "guest", '{"max-queues": 1}'], 1, 'Unrecognised limit "max-queues"'),
        (["add_user", "joe"], 1, "password cannot be empty"),
    ],
)
def test_what_cannot_be_done(data_dir: Path, arguments: list[str], code: int, why: str) -> None:
    result = run(data_dir, *arguments)
    assert (result.exit_code, why in result.output) == (code, True), result.output


def test_definitions_go_to_a_file_and_come_from_one(data_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "definitions.json"
    for command in (["export_definitions"], ["definitions", "export"]):
        assert lines(run(data_dir, *command, str(path))) == []
        exported = json.loads(path.read_text())
        assert exported["users"][0]["name"] == "guest"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, "there are password hashes in it"
    assert run(data_dir, "export_definitions", "-").output == path.read_text()
    exported["queues"] = [{"vhost": "/", "name": "imported"}, {"vhost": "/", "name": "amq.x"}]
    path.write_text(json.dumps(exported))
    result = run(data_dir, "definitions", "import", str(path))
    assert result.stderr == "rabbitish: queue 'amq.x' in vhost '/': left out, its name is reserved\n"
    assert result.stdout.endswith("2 queues (1 new)\n")
    again = run(data_dir, "import_definitions", stdin=path.read_text())
    assert again.stdout.endswith("2 queues (0 new)\n")
    assert run(data_dir, "import_definitions", stdin="{}").stdout == "imported: nothing\n"
    assert "imported" in run(data_dir, "list_queues").output
    assert lines(run(data_dir, "add_vhost", "of_its_own")) == []
    assert lines(run(data_dir, "export_definitions", "-p", "/", str(path))) == []
    assert run(data_dir, "import_definitions", "-p", "of_its_own", str(path)).exit_code == 0
    assert "imported" in run(data_dir, "list_queues", "-p", "of_its_own").output
    assert lines(run(data_dir, "delete_vhost", "of_its_own")) == []


@pytest.mark.parametrize(
    ("arguments", "stdin", "why"),
    [
        (["import_definitions", "/nosuch"], "", "rabbitish: cannot read /nosuch: No such file or directory\n"),
        (["import_definitions", "/"], "", "rabbitish: cannot read /: Is a directory\n"),
        (["export_definitions", "/nosuch/x"], "", "rabbitish: cannot write /nosuch/x: No such file or directory\n"),
        (["import_definitions"], "", "rabbitish: line 1: definitions must be a JSON object\n"),
        (
            ["import_definitions"],
            '{"queues": [{"name": "q\\u001b[31m", "vhost": "x"}]}',
            "rabbitish: queue 'q\\x1b[31m' in vhost 'x': virtual host 'x' does not exist\n",
        ),
        (["export_definitions", "-p", "x", "-"], "", "rabbitish: Virtual host 'x' does not exist\n"),
        (["authenticate_user", "guest"], "wrong\n", 'rabbitish: failed to authenticate user "guest"\n'),
    ],
)
def test_files_that_cannot_be_had(data_dir: Path, arguments: list[str], stdin: str, why: str) -> None:
    result = run(data_dir, *arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (1, why)


def test_parameters_and_tracing_are_typed(data_dir: Path) -> None:
    note = "kept, but nothing here knows the component 'c'"
    assert lines(run(data_dir, "set_parameter", "c", "n", '{"a": 1}')) == [note]
    assert lines(run(data_dir, "list_parameters")) == ["component  name  value", 'c          n     {"a": 1}']
    assert lines(run(data_dir, "clear_parameter", "c", "n")) == []
    assert lines(run(data_dir, "set_global_parameter", "g", '"x"')) == []
    assert lines(run(data_dir, "list_global_parameters")) == ["name  value", "g     x"]
    assert lines(run(data_dir, "clear_global_parameter", "g")) == []
    assert run(data_dir, "set_parameter", "c", "n", "x").exit_code == 2
    assert lines(run(data_dir, "set_cluster_name", "bunny")) == []
    assert lines(run(data_dir, "trace_on")) == ["Trace enabled for vhost /"]
    assert lines(run(data_dir, "list_vhosts", "name", "tracing")) == ["name  tracing", "/     true"]
    assert lines(run(data_dir, "trace_off")) == ["Trace disabled for vhost /"]
    assert lines(run(data_dir, "set_vhost_tags", "/", "a", "b")) == []
    assert (
        lines(run(data_dir, "update_vhost_metadata", "/", "--description", "d", "--default-queue-type", "classic"))
        == []
    )
    listed = json.loads(run(data_dir, "list_vhosts", "--json").output)[0]
    assert (listed["description"], listed["tags"], listed["default_queue_type"]) == ("d", ["a", "b"], "classic")
    assert lines(run(data_dir, "authenticate_user", "guest", stdin="guest\n")) == ["Success"]
    assert lines(run(data_dir, "list_user_topic_permissions", "guest")) == ["vhost  exchange  write  read"]


def test_no_broker(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "nosuch"):
        result = run(where, "list_users")
        assert result.exit_code == 1
        assert result.output == f"rabbitish: no broker answers at {where}/control.sock: No such file or directory\n"


def test_a_broker_that_does_not_start(tmp_path: Path) -> None:
    result = run(tmp_path, "await_startup", "--timeout", "0.1")
    assert result.exit_code == 1
    assert result.output == f"rabbitish: no broker answers at {tmp_path}/control.sock: No such file or directory\n"


def test_the_socket_is_found_as_serve_finds_it(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lines(run(data_dir, "list_users"))
    assert lines(run(None, "list_users", "--socket", str(data_dir / "control.sock"))) == expected
    monkeypatch.setenv("RABBITISH_DATA_DIR", str(data_dir))
    assert lines(run(None, "list_users")) == expected
    monkeypatch.delenv("RABBITISH_DATA_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", "")
    assert run(None, "list_users").exit_code == 2


def test_tables_show_what_clients_chose_harmlessly() -> None:
    shown = table(["name", "arguments"], [["a\n\x1b[31mb", {"x": 1}], ["ä", []]])
    assert shown == 'name          arguments\na\\n\\x1b[31mb  {"x": 1}\nä'


def test_completion() -> None:
    environ = {
        **os.environ,
        "_RABBITISH_COMPLETE": "bash_complete",
        "COMP_WORDS": "rabbitish list_q",
        "COMP_CWORD": "1",
    }
    program = "import sys; sys.argv[0] = 'rabbitish'; from rabbitish.cli import main; main(prog_name='rabbitish')"
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=30)
    assert done.stdout == "plain,list_queues\n"
