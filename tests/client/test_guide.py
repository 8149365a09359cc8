"""docs/CLIENT.md says what is so: its first program runs, its examples are Python, and the names in it exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import trio

import rabbitish.client

from .support import broker, run

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs/CLIENT.md").read_text()
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_first_program_runs() -> None:
    async def conversation() -> None:
        async with broker() as uri:
            program = PROGRAMS[0].replace("amqp://guest:guest@localhost/", uri)
            assert program != PROGRAMS[0]
            done = await trio.run_process(
                [sys.executable, "-c", program], cwd=REPOSITORY, capture_stdout=True, stderr=subprocess.STDOUT
            )
            assert done.stdout == b"Hello, world!\n"

    run(conversation)


def test_the_examples_are_python() -> None:
    for program in PROGRAMS:
        inside = "".join(f"    {line}\n" for line in program.splitlines())
        compile(f"async def example():\n{inside}", "docs/CLIENT.md", "exec")


def test_names_in_the_text_exist() -> None:
    names = set(re.findall(r"`([A-Z][a-z]\w+)", GUIDE))
    assert names <= set(rabbitish.client.__all__), names - set(rabbitish.client.__all__)
    for owner, member in re.findall(r"`([A-Z][a-z]\w+)\.(\w+)", GUIDE):
        assert hasattr(getattr(rabbitish.client, owner), member), f"{owner}.{member}"
    for name in rabbitish.client.__all__:
        assert hasattr(rabbitish.client, name), name
