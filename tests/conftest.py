"""No test may write to the home of whoever runs it: a broker that is not told where to keep its data does not start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _nothing_in_the_home() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", "/dev/null")
        yield
