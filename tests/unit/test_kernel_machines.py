"""The facts of each architecture, against the headers that are here and by their sizes."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from snaplib.kernel.injection.machine import MACHINES, machine

#: Where the numbers of system calls are, by architecture; the generic ones are those of aarch64.
HEADERS = {
    "x86_64": (
        "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "/usr/include/asm/unistd_64.h",
    ),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}

#: sizeof(struct user_regs_struct) and sizeof(struct user_pt_regs).
SIZES = {"x86_64": 216, "aarch64": 272}

NOT_RESTARTED = (
    *("semop", "rt_sigtimedwait", "io_getevents", "recvmmsg", "semtimedop", "epoll_wait"),
    *("epoll_pwait", "io_pgetevents", "io_uring_enter", "epoll_pwait2"),
)


@pytest.mark.parametrize("name", MACHINES)
def test_registers(name) -> None:
    facts = MACHINES[name]
    used = {facts.counter, facts.number, facts.argument, facts.result, facts.interrupted} - {""}
    assert used <= set(facts.registers)
    assert len(set(facts.registers)) == len(facts.registers)
    assert 8 * len(facts.registers) == SIZES[name]
    assert len(facts.instruction) in (2, 4)


@pytest.mark.parametrize("name", MACHINES)
def test_numbers_of_system_calls(name) -> None:
    header = next((Path(path) for path in HEADERS[name] if Path(path).exists()), None)
    if header is None:
        pytest.skip("the kernel's headers are not installed")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {call: int(number) for call, number in found}
    facts = MACHINES[name]
    assert facts.close == numbers["close"]
    assert facts.userfaultfd == numbers["userfaultfd"]
    assert facts.pidfd_getfd == numbers["pidfd_getfd"]
    expected = {numbers[call] for call in NOT_RESTARTED if call in numbers}
    assert facts.not_restarted == expected


def test_an_architecture_that_was_not_tried_has_to_be_asked_for(monkeypatch) -> None:
    monkeypatch.delenv("SNAPLIB_UNTRIED_MACHINE", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert machine() is None
    monkeypatch.setenv("SNAPLIB_UNTRIED_MACHINE", "1")
    assert machine() is MACHINES["aarch64"]
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert machine() is None
