"""The documents say what is so: the architecture's table, README's commands and programs, every setting's default."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_layering import LAYERS, PACKAGE, Layer, layer_of, modules

from rabbitish.config import DEFAULTS, Settings
from rabbitish.server.settings_file import load, toml_value

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
CI_RUN = (REPOSITORY / ".ci/run").read_text()
ARCHITECTURE = (REPOSITORY / "docs/ARCHITECTURE.md").read_text()
CONFIGURATION = (REPOSITORY / "docs/CONFIGURATION.md").read_text()
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables whose first cell is one word of code, without the backquotes."""
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [[row[0].strip("` |"), *row[1:]] for row in cells if re.fullmatch(r"\|? ?`\w+`", row[0])]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# --- Architecture -----------------------------------------------------------------------------------------------------


def documented_layers() -> dict[str, Layer]:
    """The table of docs/ARCHITECTURE.md, with "all" as what it stands for: every layer below."""
    table: dict[str, Layer] = {}
    for name, _, imports, world in rows(ARCHITECTURE):
        words = {"all": frozenset(table), "nothing": frozenset[str]()}
        table[name] = Layer(
            words.get(imports, frozenset(imports.split(", "))), {"no": True, "yes": False}[world.strip(" |")]
        )
    return table


def test_the_table_of_packages_is_the_rule() -> None:
    assert documented_layers() == LAYERS


def test_the_table_of_packages_is_the_tree() -> None:
    there = {layer_of(path) for path in modules()} - {"__init__", "__main__"}
    assert there == documented_layers().keys()


def test_modules_and_names_in_the_text_exist() -> None:
    for name in re.findall(r"`((?:wire|core|session|server)/\w+\.py)`", ARCHITECTURE):
        assert (PACKAGE / name).is_file(), name
    code = "".join(path.read_text() for path in modules())
    for owner, member in re.findall(r"`([A-Z]\w+)\.(\w+)(?:\(.*?\))?`", ARCHITECTURE):
        assert f"class {owner}" in code, owner
        assert f"def {member}(" in code, f"{owner}.{member}"
    for key in re.findall(r"`(\w+_(?:bytes|ms)(?:_\w+)?)`", ARCHITECTURE):
        assert key in DEFAULTS, key


# --- README -----------------------------------------------------------------------------------------------------------


def test_readme_opens_with_two_commands_and_ci_runs_the_second() -> None:
    first, second = (block.strip() for block in blocks(README, "sh")[:2])
    assert first.endswith("&& .venv/bin/rabbitish serve")
    assert second.endswith("&& .venv/bin/pytest -n auto")
    assert second in CI_RUN.splitlines()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_hello_world_runs(tmp_path: Path) -> None:
    (program,) = blocks(README, "python")
    command = [sys.executable, "-m", "rabbitish", "serve", "--listen", "amqp://127.0.0.1:0"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RABBITISH_")}
    environ["XDG_STATE_HOME"] = str(tmp_path)
    with subprocess.Popen(command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, text=True) as broker:
        try:
            assert broker.stdout is not None
            port = broker.stdout.readline().strip().rpartition(":")[2]
            assert program.count('"localhost", 5672') == 1
            program = program.replace('"localhost", 5672', f'"127.0.0.1", {port}')
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
        finally:
            broker.kill()
    assert (done.stdout, done.stderr) == ("Hello, world!\n", "")


# --- Configuration ----------------------------------------------------------------------------------------------------


def test_every_setting_is_listed_with_its_default_in_order() -> None:
    listed = [(key, default.strip("`")) for key, default, _ in rows(CONFIGURATION)]
    assert listed == [(key, toml_value(value)) for key, value in DEFAULTS.items()]


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    (example,) = blocks(CONFIGURATION, "toml")
    path = tmp_path / "rabbitish.toml"
    path.write_text(example)
    settings, sources = load(path, {}, {})
    assert settings != Settings()
    assert sum(source != "default" for source in sources.values()) == example.count(" = ")


def test_variables_and_options_in_the_text_exist() -> None:
    variables = set(re.findall(r"RABBITISH_([A-Z_]+)\b", CONFIGURATION + README)) - {"CONFIG"}
    assert {name.lower() for name in variables} <= DEFAULTS.keys()
    assert variables
