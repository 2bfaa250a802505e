"""Two guests and a cable: a task with a live connection is noticed on one, and goes on on the other.

What each guest does is in `inside/moved.py`; this starts the two and keeps how it ended.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.guests.image import Image
from tests.guests.machine import Cable, End, Job, Machine, Outcome
from tests.guests.results import note_move
from tests.guests.running import prefixed, tell

#: Ways to move, and the kernels between which each is tried.
MOVES = {
    "eager": ("6.1", "newest"),
    "lazy": ("newest", "6.12"),
    "cut": ("6.1", "6.12"),
}

_PROGRAM = "tests/guests/inside/moved.py"
#: Name in the guests, address, and what its card is called by.
_ENDS = (
    ("target", "10.77.0.2/24", "52:54:00:00:00:02"),
    ("source", "10.77.0.1/24", "52:54:00:00:00:01"),
)
#: So long one of them goes on when the other has ended.
_ALONE_S = 30.0
#: The target prints it when the source is in mid-upload.
_CUT = b"CUT THE SOURCE OFF"


def run_pair(
    image: Image,
    kernels: tuple[str, str],
    *,
    way: str = "eager",
    accelerator: str = "tcg",
    timeout_s: float = 1200.0,
) -> bool:
    """Move a task from one guest to another, and return whether all of it came through.

    Args:
        image: What guests are made of.
        kernels: Of the guest it comes from, and of the one it goes to.
        way: One of `MOVES`: restored at once, lazily, or after the source was cut off in mid-upload.
        accelerator: ``tcg`` or ``kvm``.
        timeout_s: For all of it.
    """
    print(f"guests: {way} move from {kernels[0]} to {kernels[1]}", file=sys.stderr, flush=True)
    began = time.monotonic()
    for again in (False, True):
        with tempfile.TemporaryDirectory(prefix="snaplib-cable.") as folder:
            pair = _Pair(image, kernels, way, accelerator, timeout_s)
            outcomes = pair.run(Path(folder) / "cable")
        if not again and any(one.end is End.EMULATOR for one in outcomes.values()):
            print("guests: the emulator failed; both once more", file=sys.stderr)
            continue
        break
    for name, outcome in outcomes.items():
        if outcome.end is not End.DONE and not (name == "source" and pair.was_cut):
            tell(f"{name}: {outcome.end.value}", outcome)
    sides = dict(outcomes)
    if pair.was_cut:
        del sides["source"]
    moved = all(one.end is End.DONE and one.status == 0 for one in sides.values())
    moved &= pair.was_cut == (way == "cut")
    duration_s = time.monotonic() - began
    note_move(way, kernels, moved=moved, duration_s=duration_s)
    print(f"guests: {way} move: {duration_s:.0f} s", file=sys.stderr, flush=True)
    return moved


class _Pair:
    """Two guests at a time."""

    def __init__(
        self, image: Image, kernels: tuple[str, str], way: str, accelerator: str, timeout_s: float
    ) -> None:
        self._image = image
        self._kernels = {"source": kernels[0], "target": kernels[1]}
        self._way = way
        self._accelerator = accelerator
        self._timeout_s = timeout_s
        self._machines: dict[str, Machine] = {}
        self.was_cut = False

    def run(self, cable: Path) -> dict[str, Outcome]:
        """Run both until both have ended."""
        outcomes: dict[str, Outcome] = {}

        def wait(name: str) -> None:
            outcomes[name] = self._machines[name].wait()
            if name == "target" or outcomes[name].end is not End.DONE:
                # Neither has anything to do without the other, but the target when the source was cut off.
                others = [one for one in self._machines.values() if one.name != name]
                give_up = time.monotonic() + _ALONE_S
                while any(one.running for one in others) and not self.was_cut:
                    if time.monotonic() > give_up:
                        for one in others:
                            one.end()
                    time.sleep(0.2)

        try:
            for number, (name, address, mac) in enumerate(_ENDS):
                self._start(name, Cable(cable, server=number == 0, address=address, mac=mac))
                give_up = time.monotonic() + 30
                while not cable.exists() and time.monotonic() < give_up:
                    time.sleep(0.05)
            threads = [threading.Thread(target=wait, args=(name,)) for name in self._machines]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            for machine in self._machines.values():
                machine.__exit__(None, None, None)
        return outcomes

    def _start(self, name: str, cable: Cable) -> None:
        show, seen = prefixed(f"{name} {self._kernels[name]}"), bytearray()

        def heard(content: bytes) -> None:
            show(content)
            seen.extend(content)
            if name == "target" and _CUT in seen and not self.was_cut:
                self.was_cut = True
                self._machines["source"].end()

        self._machines[name] = Machine(
            self._image,
            self._kernels[name],
            Job(["python", _PROGRAM, name, self._way], timeout_s=self._timeout_s),
            name=name,
            cable=cable,
            accelerator=self._accelerator,
            show=heard,
        )
