"""Restored memory equals what was saved, byte by byte, for programs that change it in every way."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.chains import launched, run_chain

SOURCES = Path(__file__).resolve().parents[1] / "track"

pytestmark = [pytest.mark.require("all", "write_protect"), pytest.mark.slow]


@pytest.mark.parametrize(
    ("source", "arguments"), [("churn", (17,)), ("churn", (19, 2)), ("writer", (3, 256, 23))]
)
def test_a_chain_is_restored_byte_by_byte(source, arguments, store, tmp_path, monkeypatch) -> None:
    program = tmp_path / source
    options = ["-O1", "-pthread", "-Wno-unused-result"]
    subprocess.run(["gcc", *options, "-o", program, SOURCES / f"{source}.c"], check=True)
    with launched(tmp_path, program, *arguments) as task:
        chain = run_chain(task, store, 2, random.Random(arguments[0]), monkeypatch)
    assert chain.wrong == []
    assert chain.full == []
    assert chain.compared_pages > 500
