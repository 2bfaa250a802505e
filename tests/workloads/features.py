"""A process that holds one kernel feature, and can say whether it still works.

    python features.py NAME READY [ARGUMENT]    hold the feature NAME until killed
    python features.py together FOLDER NAME...  hold each in a child of its own; READY is FOLDER/NAME/ready
    python features.py check READY              ask such a process to check itself

The first form writes ``ready`` into the file READY once the feature is there, or ``unsupported:
REASON`` when this kernel does not have it, and then sleeps. The last form prints what the
process answers, ``OK`` or ``BAD: REASON``, and exits with 0 or 1. Questions and answers are files
beside READY, so that they work across a dump and a restore.

What can be dumped is in `plain`, what cannot or what is lost in `refused`. Nothing but the standard
library is used: it runs under any Python, without snaplib.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

POLL_S = 0.02
#: Twenty of them would keep an emulated CPU busy.
POLL_TOGETHER_S = 0.5
ANSWER_WITHIN_S = 20.0


def put(path: Path, text: str) -> None:
    """Write a file so that it is never seen half written."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.rename(path)


def beside(ready: Path, suffix: str) -> Path:
    """Name a file beside READY."""
    return ready.with_name(ready.name + suffix)


def hold(name: str, ready: Path, argument: str, poll_s: float = POLL_S) -> int:
    """Make the feature, and answer questions until killed."""
    # Imported by name here, for the sibling modules lie beside this script.
    import plain  # noqa: PLC0415
    import refused  # noqa: PLC0415
    from kernel_calls import Unsupported  # noqa: PLC0415

    features = {**plain.FEATURES, **refused.FEATURES}
    if name not in features:
        print(f"no feature {name!r}; there are: {' '.join(sorted(features))}", file=sys.stderr)
        return 2
    try:
        check = features[name](ready.parent, argument)
    except (Unsupported, OSError) as error:
        put(ready, f"unsupported: {error}")
        return 3
    put(ready, "ready")
    question, answer = beside(ready, ".ask"), beside(ready, ".answer")
    while True:
        time.sleep(poll_s)
        if question.exists():
            question.unlink()
            try:
                verdict = "OK" if check is None or check() else "BAD: the check says no"
            except Exception as error:  # noqa: BLE001 - whatever is wrong is the answer
                verdict = f"BAD: {error!r}"
            put(answer, verdict)


def hold_together(folder: Path, names: list[str]) -> int:
    """Hold each feature in a child, with a folder of its own, until killed."""
    # Here, and not in each child.
    import plain  # noqa: F401, PLC0415
    import refused  # noqa: F401, PLC0415

    for name in names:
        ready = folder / name / "ready"
        ready.parent.mkdir()
        if os.fork() == 0:
            os._exit(hold(name, ready, "", POLL_TOGETHER_S))
    while True:
        signal.pause()


def ask(ready: Path) -> None:
    """Ask the process that wrote READY whether its feature still works; `verdict_of` has its answer."""
    beside(ready, ".answer").unlink(missing_ok=True)
    put(beside(ready, ".ask"), "")


def verdict_of(ready: Path) -> str:
    """Return what was answered, when it is."""
    answer = beside(ready, ".answer")
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while not answer.exists():
        if time.monotonic() > deadline:
            return f"BAD: no answer after {ANSWER_WITHIN_S} s"
        time.sleep(POLL_S)
    return answer.read_text()


def main(arguments: list[str]) -> int:
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    name, ready = arguments[0], Path(arguments[1])
    if name == "together":
        return hold_together(ready, arguments[2:])
    if name == "check":
        ask(ready)
        verdict = verdict_of(ready)
        print(verdict)
        return 0 if verdict == "OK" else 1
    return hold(name, ready, arguments[2] if len(arguments) > 2 else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
