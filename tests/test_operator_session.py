"""docs/OPERATOR_SESSION.md is what happens: its blocks are run one after the other, and say what it says they do."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
GUIDE = (REPOSITORY / "docs/OPERATOR_SESSION.md").read_text()
PATIENCE_SECONDS = 60


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as sock:
        return int(sock.getsockname()[1])


def script(blocks: list[tuple[str, str]]) -> str:
    """The guide as one script: Python's blocks continue each other, and the broker ends with it."""
    lines, python = ["set -e", "trap 'kill $! 2>/dev/null || true' EXIT"], ""
    for kind, text in blocks:
        if kind == "python":
            lines.append(f"{sys.executable} - <<'END'\n{python}{text}END\n")
            # What it defines and imports counts for the next block, what it does would be done again.
            python += "".join(re.findall(r"^(?:import .*|context = .*|def .*\n(?:    .*\n)+)\n?", text, re.M))
        elif kind == "sh":
            lines.append(text.replace(" &\n", " >/dev/null &\n"))  # where it listens is said by a port of ours
    return "\n".join(lines)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the guide makes its certificate with openssl")
def test_the_guide_is_what_happens(tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.M | re.S)
    assert {kind for kind, _ in blocks} == {"sh", "python", "text"}
    command = tmp_path / "bin/rabbitish"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m rabbitish "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path}
    run = subprocess.run(
        ["bash"],
        input=script(blocks).replace("5671", str(free_port())),
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "".join(text for kind, text in blocks if kind == "text")
    assert "Traceback" not in run.stderr
