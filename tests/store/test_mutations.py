"""Every mutation that mutations.py makes by hand can still be made: its place is there once, and it is no nonsense."""

from __future__ import annotations

import ast

import pytest

from .mutations import MUTATIONS, ROOT, Mutation, mutated


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_it_applies(mutation: Mutation) -> None:
    text = (ROOT / "rabbitish" / mutation.file).read_text()
    assert ast.dump(ast.parse(mutated(mutation, text))) != ast.dump(ast.parse(text))
    for name in mutation.tests.split():
        assert (ROOT / "tests" / name).is_file()
