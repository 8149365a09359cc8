"""Every Python program in the pages for readers runs, and prints what the page says it prints."""

from __future__ import annotations

import importlib.util
import re
import shlex
import signal
from dataclasses import replace
from pathlib import Path

# What a run of pytest inside of this one imports is forgotten after it, unless it was there before.
import click
import pika  # noqa: F401
import pytest
from click.testing import CliRunner

import rabbitish.client
import rabbitish.testing.thread
from rabbitish.cli import main
from rabbitish.server.settings_file import load
from rabbitish.testing import RunningBroker, Vhost
from rabbitish.testing.plugin import rabbitish_broker as rabbitish_broker
from rabbitish.testing.plugin import rabbitish_options as rabbitish_options
from rabbitish.testing.plugin import rabbitish_vhost as rabbitish_vhost

pytest_plugins = "pytester"

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = ("GETTING_STARTED", "CONCEPTS", "GUARANTEES", "MIGRATING", "OPERATIONS")
LOCAL = "amqp://guest:guest@localhost:5672/"
OTHER = "amqp://guest:guest@old.example.org:5672/"
PATIENCE_SECONDS = 20
DECLARE = f"""
import pika
with pika.BlockingConnection(pika.URLParameters("{LOCAL}")) as connection:
    connection.channel().queue_declare("orders", durable=True)
"""
_PROGRAM = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
FOUND = [
    pytest.param(found["code"], found["output"] or "", id=f"{page}-{number}")
    for page in PAGES
    for number, found in enumerate(_PROGRAM.finditer((DOCS / f"{page}.md").read_text()), 1)
]
PROGRAMS = [param for param in FOUND if not any(word in str(param.values[0]) for word in ("def test_", OTHER))]
TESTS = [param for param in FOUND if "def test_" in str(param.values[0])]


def run(code: str, vhost: Vhost) -> None:
    """Run a program as one; TimeoutError, or trio's way to say it: it does not end."""
    assert LOCAL in code

    def tired(*_: object) -> None:
        raise TimeoutError("the program does not end")

    before = signal.signal(signal.SIGALRM, tired)
    signal.alarm(PATIENCE_SECONDS)
    try:
        exec(compile(code.replace(LOCAL, vhost.url), "a program of docs/", "exec"), {"__name__": "__main__"})
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("code", "output"), PROGRAMS)
def test_a_program_prints_what_the_page_says(
    rabbitish_vhost: Vhost,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    output: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run(code, rabbitish_vhost)
    assert capsys.readouterr().out == output
    assert output


def test_programs_can_be_run_one_after_the_other_and_again(
    rabbitish_vhost: Vhost, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for param in (*PROGRAMS, *PROGRAMS):
        code, output = param.values
        run(str(code), rabbitish_vhost)
        assert capsys.readouterr().out == output, param.id


def test_the_program_that_moves_messages(rabbitish_broker: RunningBroker, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = [str(param.values[0]) for param in FOUND if OTHER in str(param.values[0])]
    with rabbitish_broker.fresh_vhost() as old, rabbitish_broker.fresh_vhost() as new:
        for vhost in (old, new):
            run(DECLARE, vhost)
        for number in range(1500):
            old.publish(f"order {number}", "orders", content_type="text/plain", headers={"n": number}, user_id="guest")
        before = old.queue("orders").messages
        run(code.replace(OTHER, old.url), new)
        after = new.queue("orders").messages
        assert (old.queue("orders").ready, old.queue("orders").unacked) == (0, 0)
    assert capsys.readouterr().out == "orders 1500\n"
    assert [message.text for message in after] == [message.text for message in before]
    assert [replace(message.properties, user_id="guest") for message in after] == [
        message.properties for message in before
    ]


@pytest.mark.parametrize(("code", "output"), TESTS)
def test_a_test_passes(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, code: str, output: str) -> None:
    pytester.makepyfile(code)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = pytester.runpytest("-p", "rabbitish.testing.plugin", "-W", "error", "-W", "default::ResourceWarning")
    result.assert_outcomes(passed=code.count("def test_"))


def test_pictures_are_what_the_script_draws() -> None:
    specification = importlib.util.spec_from_file_location("draw", DOCS / "pictures/draw.py")
    assert specification is not None
    assert specification.loader is not None
    draw = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(draw)
    drawn = {f"{name}.svg": picture() for name, picture in draw.PICTURES.items()}
    assert drawn == {path.name: path.read_text() for path in (DOCS / "pictures").glob("*.svg")}
    assert drawn.keys() == set(re.findall(r"pictures/(\w+\.svg)", (DOCS / "CONCEPTS.md").read_text()))


# --- The command line -----------------------------------------------------------------------------------------------


def typed(page: Path) -> list[list[str]]:
    """What a page has its reader type, of commands of ours."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line[1:] for line in lines if line[:1] == ["rabbitish"]]


@pytest.mark.parametrize(
    "page", [path for path in sorted(DOCS.glob("*.md")) if typed(path)], ids=lambda path: path.name
)
def test_commands_exist_with_their_options(page: Path) -> None:
    for words in typed(page):
        command: click.Command = main
        # With its settings: click makes a command's help option once, for whoever asks first.
        context = click.Context(main, info_name="rabbitish", **main.context_settings)
        while isinstance(command, click.Group):
            found = command.get_command(context, words[0])
            assert found is not None, words
            command, context, words = found, click.Context(found, parent=context), words[1:]
        _, _, arguments = command.make_parser(context).parse_args(list(words))
        assert bool(words) or not any(
            argument.required for argument in arguments if isinstance(argument, click.Argument)
        )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_there_for_each_shell_named(shell: str) -> None:
    line = f"_RABBITISH_COMPLETE={shell}_source rabbitish"
    assert line in (DOCS / "OPERATIONS.md").read_text()
    script = CliRunner().invoke(main, prog_name="rabbitish", env={"_RABBITISH_COMPLETE": f"{shell}_source"})
    assert script.exit_code == 0
    assert f"_RABBITISH_COMPLETE={shell}_complete" in script.output


def test_the_configuration_of_a_service_is_one(tmp_path: Path) -> None:
    [example] = re.findall(r"^```toml\n(.*?)^```$", (DOCS / "OPERATIONS.md").read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / "rabbitish.toml"
    path.write_text(example)
    settings, _ = load(path, {}, {})
    assert settings.uses_tls
    assert settings.audit_log


# --- The reference ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [rabbitish.client, rabbitish.testing], ids=lambda module: module.__name__)
def test_the_reference_has_everything_public(module: object) -> None:
    name = module.__name__  # type: ignore[attr-defined]
    page = (DOCS / f"reference/{name.rpartition('.')[2]}.md").read_text()
    listed = re.findall(rf"^::: {name}\.(\w+)$", page, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == set(module.__all__)  # type: ignore[attr-defined]
