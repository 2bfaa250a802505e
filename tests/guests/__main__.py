"""Run a command in a throw-away guest with a stock Debian kernel, or the tests made for guests; see docs/guests.md.

python -m tests.guests build                       make what guests are made of; all others do that as well
python -m tests.guests refresh                     make it again, with the kernels of today
python -m tests.guests [--kernel K] -- COMMAND...  run a command in the checkout's copy, as root
python -m tests.guests [--kernel K] test [PATH...] run what is planned, or tests; on all kernels unless one is named
python -m tests.guests pair [WAY [SOURCE TARGET]]  move a task with a live connection from guest to guest
python -m tests.guests [--kernel K] without        leave out what the code does for a kernel: its test has to fail
python -m tests.guests matrix                      write docs/support.md from the results of the tests
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.guests.debian import BuildError
from tests.guests.image import KERNELS, Image
from tests.guests.machine import Job
from tests.guests.matrix import write_matrix
from tests.guests.pair import MOVES, run_pair
from tests.guests.results import RESULTS, write_results
from tests.guests.running import run_job
from tests.guests.suite import Suite
from tests.guests.without import run_without

#: What a build that failed ends with.
_NOT_BUILT = 3


def main(words: list[str]) -> int:
    """Do what the words say; the status is the command's, 124 after the time limit, 125 if the guest died."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.guests",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kernel", choices=list(KERNELS))
    parser.add_argument("--put", type=Path, help="this folder is /in/ITS-NAME in the guest")
    parser.add_argument("--out", type=Path, help="what the command leaves in /out goes here")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS")
    parser.add_argument("--memory", type=int, default=1536, metavar="MIB")
    parser.add_argument(
        "--accelerator",
        choices=["tcg", "kvm"],
        default="tcg",
        help="kvm only where it is known to work: it is never chosen because /dev/kvm exists",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="build | test | -- COMMAND ...")
    args = parser.parse_args(words)
    verb, *rest = args.words or parser.error("nothing to do")
    if verb == "matrix":
        if RESULTS.is_dir():
            write_results()
        return write_matrix()
    image = Image()
    try:
        if verb == "refresh":
            image.refresh()
        image.build()
    except BuildError as error:
        print(f"guests: {error}", file=sys.stderr)
        return _NOT_BUILT
    if verb in ("build", "refresh"):
        return 0
    if verb == "test":
        kernels = [args.kernel] if args.kernel else list(KERNELS)
        suite = Suite(image, args.accelerator)
        return suite.run_some(kernels, rest) if rest else suite.run_all(kernels)
    if verb == "without":
        kernels = [args.kernel] if args.kernel else list(KERNELS)
        return run_without(image, kernels, accelerator=args.accelerator)
    if verb == "pair":
        way = rest[0] if rest else "eager"
        if way not in MOVES or not {*rest[1:]} <= {*KERNELS} or len(rest) not in (0, 1, 3):
            parser.error(f"pair: a way ({', '.join(MOVES)}), and two kernels or none")
        kernels = (rest[1], rest[2]) if rest[1:] else MOVES[way]
        return 0 if run_pair(image, kernels, way=way, accelerator=args.accelerator) else 1
    if verb != "--" or not rest:
        parser.error("a command comes after --")
    job = Job(
        rest,
        folders={args.put.resolve().name: args.put} if args.put else {},
        timeout_s=args.timeout,
        memory_mib=args.memory,
    )
    kernel = args.kernel or "6.12"
    return run_job(image, kernel, job, out=args.out, accelerator=args.accelerator).status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
