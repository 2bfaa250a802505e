"""Run benchmarks: every module ``bench_NAME`` here has ``SUMMARY``, ``configure(parser)`` and ``run(args)``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path


def main() -> int:
    """Run the benchmark that is named, or all of them."""
    names = sorted(
        module.name.removeprefix("bench_")
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if module.name.startswith("bench_")
    )
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    chosen = parser.add_subparsers(dest="name", metavar="NAME")
    modules = {name: importlib.import_module(f"tests.benchmarks.bench_{name}") for name in names}
    for name, module in modules.items():
        one = chosen.add_parser(name.replace("_", "-"), help=module.SUMMARY)
        module.configure(one)
    args = parser.parse_args()
    if args.name:
        modules[args.name.replace("-", "_")].run(args)
        return 0
    for name, module in modules.items():
        print(f"\n== {name.replace('_', '-')}: {module.SUMMARY}", flush=True)
        module.run(parser.parse_args([name.replace("_", "-")]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
