"""Two guests and a cable: a task with a live connection is noticed on one, and goes on on the other.

What each guest does is in `inside/moved.py`; this starts the two and keeps how it ended.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.guests.image import Image
from tests.guests.machine import Cable, End, Job, Machine, Outcome
from tests.guests.running import tell

_PROGRAM = "tests/guests/inside/moved.py"
#: Name in the guests, address, and what its card is called by.
_ENDS = (
    ("target", "10.77.0.2/24", "52:54:00:00:00:02"),
    ("source", "10.77.0.1/24", "52:54:00:00:00:01"),
)


def run_pair(
    image: Image,
    kernels: tuple[str, str],
    *,
    accelerator: str = "tcg",
    words: tuple[str, ...] = (),
    timeout_s: float = 1200.0,
) -> bool:
    """Move a task from one guest to another, and return whether all of it came through.

    Args:
        image: What guests are made of.
        kernels: Of the guest it comes from, and of the one it goes to.
        accelerator: ``tcg`` or ``kvm``.
        words: Further arguments of the program.
        timeout_s: For all of it.
    """
    by_name = {"source": kernels[0], "target": kernels[1]}
    for again in (False, True):
        with tempfile.TemporaryDirectory(prefix="snaplib-cable.") as folder:
            cable = Path(folder) / "cable"
            outcomes = _run(
                image,
                by_name,
                accelerator=accelerator,
                cable=cable,
                words=words,
                timeout_s=timeout_s,
            )
        if any(one.end is End.EMULATOR for one in outcomes.values()) and not again:
            print("guests: the emulator failed; both once more", file=sys.stderr)
            continue
        break
    for name, outcome in outcomes.items():
        if outcome.end is not End.DONE:
            tell(f"{name}: {outcome.end.value}", outcome)
    return all(one.end is End.DONE and one.status == 0 for one in outcomes.values())


def _run(
    image: Image,
    kernels: dict[str, str],
    *,
    accelerator: str,
    cable: Path,
    words: tuple[str, ...],
    timeout_s: float,
) -> dict[str, Outcome]:
    machines: list[Machine] = []
    outcomes: dict[str, Outcome] = {}
    try:
        for number, (name, address, mac) in enumerate(_ENDS):
            job = Job(["python", _PROGRAM, name, *words], timeout_s=timeout_s)
            end = Cable(cable, server=number == 0, address=address, mac=mac)
            show = _prefixed(name)
            machines.append(
                Machine(
                    image,
                    kernels[name],
                    job,
                    name=name,
                    cable=end,
                    accelerator=accelerator,
                    show=show,
                )
            )
            give_up = time.monotonic() + 30
            while not cable.exists() and time.monotonic() < give_up:
                time.sleep(0.05)

        def wait(machine: Machine) -> None:
            outcomes[machine.name] = machine.wait()

        threads = [threading.Thread(target=wait, args=(machine,)) for machine in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for machine in machines:
            machine.__exit__(None, None, None)
    return outcomes


def _prefixed(name: str) -> Callable[[bytes], None]:
    rest = bytearray()

    def show(content: bytes) -> None:
        rest.extend(content)
        *lines, last = bytes(rest).split(b"\n")
        rest[:] = last
        for line in lines:
            sys.stdout.buffer.write(f"[{name}] ".encode() + line + b"\n")
        sys.stdout.buffer.flush()

    return show
