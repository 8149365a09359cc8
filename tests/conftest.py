"""No test may write to the home of whoever runs it: a broker that is not told where to keep its data does not start.

And no program that tests start is compiled again for each of them; nothing is garbage while tests are collected.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator

import pytest

gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _nothing_in_the_home() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", "/dev/null")
        yield


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where no byte code may be written next to the source, programs that tests start keep theirs in our folder."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # for all workers
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(base / "bytecode"))
        yield
