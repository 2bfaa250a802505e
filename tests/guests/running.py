"""Running a job in a guest, once more if the emulator failed, and telling how it went."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from tests.guests.image import Image
from tests.guests.machine import End, Job, Machine, Outcome
from tests.guests.results import readable

_CONSOLE_LINES = 40


def run_job(
    image: Image,
    kernel: str,
    job: Job,
    *,
    out: Path | None = None,
    accelerator: str = "tcg",
    show: Callable[[bytes], None] | None = None,
) -> Outcome:
    """Run a job in a guest of its own.

    Args:
        image: What guests are made of.
        kernel: Which.
        job: What to do.
        out: Where what the command left in ``/out`` is put.
        accelerator: ``tcg`` or ``kvm``.
        show: Called with what the command prints; it goes to our standard output otherwise.
    """
    for again in (False, True):
        with Machine(image, kernel, job, accelerator=accelerator, show=show) as machine:
            outcome = machine.wait()
            if outcome.end is End.EMULATOR and not again:
                tell(
                    f"{outcome.end.value}, which says nothing of what ran in it; once more", outcome
                )
                continue
            if outcome.end is not End.DONE:
                tell(outcome.end.value, outcome)
            elif out is not None:
                machine.collect(out)
        break
    return outcome


def prefixed(name: str) -> Callable[[bytes], None]:
    """Return a function that prints lines of a guest's output with its name before each.

    Args:
        name: Of the guest.
    """
    rest = bytearray()

    def show(content: bytes) -> None:
        rest.extend(content)
        *lines, last = bytes(rest).split(b"\n")
        rest[:] = last
        shown = (readable(line.decode(errors="replace")) for line in lines)
        sys.stdout.buffer.write("".join(f"[{name}] {line}\n" for line in shown).encode())
        sys.stdout.buffer.flush()

    return show


def tell(what: str, outcome: Outcome) -> None:
    """Say how a guest failed, with the end of its console."""
    print(f"guests: after {outcome.duration_s:.0f} s: {what}; its console:", file=sys.stderr)
    for line in outcome.console.splitlines()[-_CONSOLE_LINES:]:
        print(f"    {line}", file=sys.stderr)
    sys.stderr.flush()
