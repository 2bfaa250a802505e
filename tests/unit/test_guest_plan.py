"""What is planned for guests is there, and so is what is left out to see that it is needed."""

from __future__ import annotations

import ast
import importlib
import re

import pytest

from tests.guests.image import KERNELS
from tests.guests.plan import FIRST, THEN
from tests.guests.without import ALL, Without, changed

PLANNED = sorted({*FIRST, *(test for tests in THEN.values() for test in tests)})


def is_there(test: str) -> bool:
    path, _, name = test.partition("::")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return not name or hasattr(module, re.sub(r"\[.*", "", name))


@pytest.mark.parametrize("test", PLANNED)
def test_it_can_be_imported(test: str) -> None:
    assert is_there(test)


@pytest.mark.parametrize("one", ALL, ids=[one.name for one in ALL])
def test_what_is_left_out_is_there_and_leaves_a_program(one: Without) -> None:
    assert one.kernel in KERNELS
    assert is_there(one.test)
    ast.parse(changed(one))


def test_a_text_that_is_not_there_is_not_left_out(tmp_path) -> None:
    one = Without("it", "6.1", "it.py", "old", "new", "test")
    for content in ("nothing", "old and old"):
        (tmp_path / "it.py").write_text(content)
        with pytest.raises(ValueError, match="has 'old'"):
            changed(one, tmp_path)
