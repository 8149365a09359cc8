"""What the documentation's site has beyond docs/: a page for each example, and one for the command line. MkDocs' hooks.

The files in docs/ are made to be read in the repository too, so their links are paths in it. Here a link to what has a
page on the site becomes one to that page; one to another file of the repository becomes plain text.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from rabbitish.cli import main

REPOSITORY = Path(__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
_LINK = re.compile(r"(?<!!)\[([^]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_FENCES = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have pages that the navigation does not name at its end, so that none is missing."""
    named = set(re.findall(r"'([^']+\.md)'", repr(config.nav)))
    docs = Path(config.docs_dir)
    more = [path.name for path in sorted(docs.glob("*.md")) if path.name not in named]
    assert config.nav is not None
    config.nav += [{"More": more}] if more else []
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    made = {"reference/commands.md": "".join(commands(main, "rabbitish", None)), "examples/index.md": examples_index()}
    for path in programs():
        made[site_path(path.relative_to(REPOSITORY).as_posix())] = program_page(path)
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where things are on the site."""
    here = page.file.src_uri
    source = "examples/README.md" if here == "examples/index.md" else f"docs/{here}"

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if not (REPOSITORY / path).exists():
            return found[0]  # wrong, or already a page's: MkDocs says so
        there = site_path(path)
        if files.get_file_from_path(there) is None:
            return text
        return f"[{text}]({posixpath.relpath(there, posixpath.dirname(here))}{anchor or ''})"

    parts = _FENCES.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def site_path(path: str) -> str:
    """Where the page of a file of the repository is, if it has one."""
    if path in ("examples", "examples/README.md"):
        return "examples/index.md"
    if path.startswith("examples/") and path.endswith(".py"):
        return f"{path.removesuffix('.py')}.md"
    return path.removeprefix("docs/")


# ---- examples


def programs() -> list[Path]:
    """All of them, in order."""
    return sorted(path for path in EXAMPLES.rglob("*.py") if path.name != "__init__.py")


def program_page(path: Path) -> str:
    """A program, to be read."""
    name = path.relative_to(EXAMPLES).as_posix()
    return f"# {name}\n\n`examples/{name}`\n\n````python\n{path.read_text()}````\n"


def examples_index() -> str:
    """What examples/README.md says, and all programs with the first line of each."""
    readme = EXAMPLES / "README.md"
    text = readme.read_text() if readme.exists() else "# Examples\n"
    lines = [
        f"- [{path.relative_to(EXAMPLES).as_posix()}]({path.relative_to(EXAMPLES).as_posix()}): {first_line(path)}"
        for path in programs()
    ]
    return f"{text}\n## All programs\n\n" + "\n".join(lines) + "\n"


def first_line(path: Path) -> str:
    """What a program says it is."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


# ---- the command line


def commands(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """The help of a command, and of those below it, as it is printed."""
    context = click.Context(command, info_name=name.rpartition(" ")[2], parent=parent, terminal_width=100)
    if parent is None:
        yield "# The command line\n\nWhat `rabbitish` and its commands say to `--help`.\n"
    yield f"\n## {name}\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            below: Any = command.get_command(context, each)
            yield from commands(below, f"{name} {each}", context)
