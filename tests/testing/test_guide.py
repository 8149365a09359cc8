"""The programs in docs/TESTING.md and the example do what they say, as test runs of their own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

# What a run of pytest inside of this one imports is forgotten after it, unless it was there before.
import aio_pika  # noqa: F401
import celery.contrib.testing.worker  # noqa: F401
import pika  # noqa: F401
import pytest

import rabbitish.testing.thread  # noqa: F401

pytest_plugins = "pytester"

REPOSITORY = Path(__file__).parents[2]
GUIDE = (REPOSITORY / "docs/TESTING.md").read_text()
SECTIONS = [section.partition("\n") for section in GUIDE.split("\n## ")]
PROGRAMS = [
    (title, code)
    for title, _, text in SECTIONS
    for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]


def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.RunResult:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # What another test left behind is found when the collector gets to it, which may be here.
    return pytester.runpytest("-p", "rabbitish.testing.plugin", "-W", "error", "-W", "default::ResourceWarning")


def test_the_guide_has_programs() -> None:
    assert len(PROGRAMS) == GUIDE.count("```python\n") >= 8


@pytest.mark.parametrize("program", [code for _, code in PROGRAMS], ids=[title for title, _ in PROGRAMS])
def test_programs_of_the_guide(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    pytester.makepyfile(program)
    run(pytester, monkeypatch).assert_outcomes(passed=len(re.findall(r"^ *def test_", program, re.MULTILINE)))


def test_the_example(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("orders.py", "test_orders.py"):
        shutil.copy(REPOSITORY / "examples" / name, pytester.path)
    run(pytester, monkeypatch).assert_outcomes(passed=5)
