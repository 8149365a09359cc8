"""The architecture's table as a test: who may import whom, and what the pure packages must not touch.

`LAYERS` is the table of docs/ARCHITECTURE.md; tests/test_docs.py checks that the two are the same. Sizes and docstrings
are checked here as well, since they keep the layers readable. The checks themselves are tried on wrong code first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parents[1] / "rabbitish"
LONGEST_FILE = 500
LONGEST_FUNCTION = 70


class Layer(NamedTuple):
    """What a package may import of ours, and whether it may meet the world outside."""

    imports: frozenset[str]
    pure: bool


def layer(imports: str = "", *, pure: bool = True) -> Layer:
    return Layer(frozenset(imports.split()), pure)


LAYERS = {
    "errors": layer(),
    "values": layer(),
    "addresses": layer(),
    "config": layer("addresses"),
    "wire": layer("errors values"),
    "core": layer("errors values"),
    "session": layer("wire core errors values config"),
    "gateway": layer("wire errors values"),
    "store": layer("core errors values"),
    "cluster": layer("store errors values", pure=False),
    "server": layer("session gateway store cluster wire core errors values addresses config", pure=False),
    "tools": layer("server session store core errors values", pure=False),
    "perf": layer("wire errors values"),
    "testing": layer("server session core wire errors values config", pure=False),
    "client": layer("wire errors values", pure=False),
    "cli": layer("server tools perf addresses config", pure=False),
}

# The modules of pure packages that may meet the world outside.
OUTSIDE = {PACKAGE / name for name in ("store/files.py", "perf/links.py", "perf/run.py", "perf/command.py")}

# The part of a package that is pure although the package is not, and what of the package it may import.
PURE_PARTS = {
    PACKAGE / "client/protocol": ("rabbitish.client.protocol", "rabbitish.client.errors"),
    PACKAGE / "cluster/protocol": ("rabbitish.cluster.protocol",),
}

# What would bring waiting, the operating system, the clock or chance into a pure package.
# fmt: off
BANNED_MODULES = frozenset((
    "anyio", "asyncio", "click", "concurrent", "ctypes", "fcntl", "glob", "http", "importlib", "io", "logging",
    "mmap", "multiprocessing", "os", "outcome", "pathlib", "platform", "queue", "random", "resource", "sched",
    "secrets", "select", "selectors", "shutil", "signal", "sniffio", "socket", "socketserver", "ssl", "subprocess",
    "sys", "tempfile", "threading", "time", "trio", "urllib", "uuid", "warnings",
))
# fmt: on
URI_PARSER = ["urllib", "parse"]  # as pure as any
BANNED_CALLS = frozenset({"open", "print", "input", "exec", "eval", "breakpoint", "__import__"})
CLOCK_METHODS = frozenset({"now", "utcnow", "today"})


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every imported name in full, with its line; those inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def pure_part(path: Path) -> Path | None:
    """The pure part of a package that is not pure, if the module is in one."""
    return next((part for part in PURE_PARTS if part in path.parents), None)


def part_faults(part: Path, tree: ast.AST) -> Iterator[str]:
    """Imports of its own package that a pure part must not have."""
    for line, target in imported(tree):
        ours = f"rabbitish.{layer_of(part)}"
        if target.startswith(ours) and not target.startswith(PURE_PARTS[part]):
            yield f"{line}: {part.name} imports {target}"


def import_faults(name: str, tree: ast.AST, *, pure: bool = False) -> Iterator[str]:
    """Imports that the layer `name` must not have; `pure`: or a pure part of it."""
    rule = LAYERS[name]
    for line, target in imported(tree):
        parts = target.split(".")
        if parts[0] == "":
            yield f"{line}: relative import"
        elif parts[0] == "rabbitish":
            if parts[1] in LAYERS and parts[1] != name and parts[1] not in rule.imports:
                yield f"{line}: {name} imports {parts[1]}"
            elif parts[1] not in LAYERS and parts[1] != "__version__":
                yield f"{line}: {name} imports rabbitish.{parts[1]}"
        elif (rule.pure or pure) and parts[0] in BANNED_MODULES and parts[:2] != URI_PARSER:
            yield f"{line}: {name} is pure and imports {parts[0]}"


def impurities(tree: ast.AST) -> Iterator[str]:
    """Code that waits, looks at the clock or touches files."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield f"{node.lineno}: async"
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in BANNED_CALLS:
                yield f"{node.lineno}: {called.id}()"
            elif isinstance(called, ast.Attribute) and called.attr in CLOCK_METHODS:
                yield f"{node.lineno}: .{called.attr}() reads the clock"


def size_faults(source: str, tree: ast.AST) -> Iterator[str]:
    """What has grown longer than a reader likes."""
    lines = source.count("\n")
    if lines > LONGEST_FILE:
        yield f"{lines} lines, at most {LONGEST_FILE}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{node.lineno}: {node.name} has {length} lines, at most {LONGEST_FUNCTION}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module(path: Path) -> None:
    source = path.read_text()
    tree = ast.parse(source)
    name = layer_of(path)
    faults = list(size_faults(source, tree))
    if not ast.get_docstring(tree):
        faults.append("no docstring")
    if name not in ("__init__", "__main__"):
        part = pure_part(path)
        pure = (LAYERS[name].pure and path not in OUTSIDE) or part is not None
        faults += [fault for fault in import_faults(name, tree, pure=pure) if pure or "is pure" not in fault]
        faults += part_faults(part, tree) if part is not None else ()
        if pure:
            faults += impurities(tree)
    assert faults == []


def test_the_package_itself_and_main_import_next_to_nothing() -> None:
    for name, allowed in (("__init__", set()), ("__main__", {"rabbitish.cli.main"})):
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        ours = {target for _, target in imported(tree) if target.startswith("rabbitish")}
        assert ours == allowed


def test_layers_have_an_order() -> None:
    placed: set[str] = set()
    while len(placed) < len(LAYERS):
        ready = {name for name, rule in LAYERS.items() if name not in placed and rule.imports <= placed}
        assert ready, "layers import each other in a circle"
        placed |= ready


def test_a_pure_layer_imports_pure_layers_only() -> None:
    for rule in LAYERS.values():
        assert not rule.pure or all(LAYERS[name].pure for name in rule.imports)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("core", "from rabbitish.wire.frames import HEAD"),
        ("core", "import rabbitish.config"),
        ("wire", "from rabbitish import core"),
        ("wire", "def f():\n    import rabbitish.session.peer"),
        ("errors", "if TYPE_CHECKING:\n    from rabbitish.values import Table"),
        ("session", "from rabbitish.server.log import get_log"),
        ("session", "from rabbitish.cli import main"),
        ("session", "from rabbitish import main"),
        ("session", "from . import outbox"),
        ("core", "import trio"),
        ("core", "import os.path"),
        ("wire", "from socket import socket"),
        ("config", "from time import time"),
        ("session", "import concurrent.futures"),
        ("perf", "from urllib.request import urlopen"),
        ("cli", "from rabbitish.core.broker import Broker"),
    ],
)
def test_wrong_imports_are_found(name: str, code: str) -> None:
    assert len(list(import_faults(name, ast.parse(code)))) == 1


def test_a_pure_part_does_not_import_what_is_built_on_it() -> None:
    part = PACKAGE / "client/protocol"
    assert len(list(part_faults(part, ast.parse("from rabbitish.client.link import Link")))) == 1
    assert not list(part_faults(part, ast.parse("from rabbitish.client.protocol.promise import Promise")))
    part = PACKAGE / "cluster/protocol"
    assert len(list(part_faults(part, ast.parse("from rabbitish.cluster.etcd import Etcd")))) == 1
    assert not list(part_faults(part, ast.parse("from rabbitish.cluster.protocol.log import Log")))
    assert len(list(import_faults("client", ast.parse("import trio"), pure=True))) == 1
    assert not list(import_faults("client", ast.parse("import trio")))


@pytest.mark.parametrize(
    "code",
    [
        "async def f(): pass",
        "datetime.now()",
        "datetime.datetime.utcnow()",
        "date.today()",
        "open('x')",
        "print(1)",
    ],
)
def test_impurities_are_found(code: str) -> None:
    assert len(list(impurities(ast.parse(code)))) == 1


def test_what_is_too_long_is_found() -> None:
    function = "def f():\n" + "    pass\n" * LONGEST_FUNCTION
    assert len(list(size_faults(function, ast.parse(function)))) == 1
    file = "x = 1\n" * (LONGEST_FILE + 1)
    assert len(list(size_faults(file, ast.parse(file)))) == 1


def test_right_code_has_no_faults() -> None:
    code = "from rabbitish import __version__\nfrom rabbitish.core.queue import Queue\ndef f(now): return Queue(now)\n"
    tree = ast.parse(code)
    assert [*import_faults("session", tree), *impurities(tree), *size_faults(code, tree)] == []
