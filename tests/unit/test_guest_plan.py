"""What is planned for guests is there."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.guests.plan import FIRST, THEN

PLANNED = sorted({*FIRST, *(test for tests in THEN.values() for test in tests)})


@pytest.mark.parametrize("test", PLANNED)
def test_it_can_be_imported(test: str) -> None:
    path, _, name = test.partition("::")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    assert not name or hasattr(module, re.sub(r"\[.*", "", name))
