"""Real programs of different kinds, each at work for minutes, with tens to hundreds of megabytes.

Every command is one task: a process or a tree that nothing outside feeds. What is not installed is left out.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

__all__ = ["PROGRAMS", "REDIS", "Program", "available", "link_redis", "running"]

Prepare = Callable[[Path], None]


@attrs.frozen
class Program:
    """A program and what it works on.

    Attributes:
        name: What its figures are called.
        kind: What sort of program it is.
        command: Its arguments; ``{folder}`` is where `prepare` has put its input.
        needs: Commands without which it cannot run.
        prepare: Makes its input.
        environment: Added to the environment.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    prepare: Prepare = lambda _folder: None
    environment: tuple[tuple[str, str], ...] = ()


def _genome(folder: Path) -> None:
    choose = random.Random(7)
    bases = "".join(choose.choices("ACGT", k=700_000))
    with (folder / "ref.fa").open("w") as file:
        for chromosome in range(8):
            # Mutated copies: an index of something, and quickly made.
            at = choose.randrange(len(bases))
            body = bases[at:] + "".join(choose.choices("ACGT", k=2000)) + bases[:at]
            file.write(f">chr{chromosome}\n{body}\n")
    subprocess.run(["bwa", "index", folder / "ref.fa"], check=True, capture_output=True)
    with (folder / "reads.fq").open("w") as file:
        for number in range(120_000):
            at = choose.randrange(len(bases) - 150)
            file.write(f"@r{number}\n{bases[at : at + 150]}\n+\n{'I' * 150}\n")


def _source(folder: Path) -> None:
    """Many functions, so that the compiler has something to keep."""
    lines = ["#include <math.h>"]
    lines += [
        f"double f{number}(double x, double *y) {{ double s = {number}; "
        f"for (int i = 0; i < 64; i++) {{ s += y[i] * x + sin(s) * {number % 97}; "
        f"y[i] = s * f{max(number - 1, 0)}(s / 3, y + 1); }} return s; }}"
        for number in range(40_000)
    ]
    (folder / "big.c").write_text("\n".join(lines))


_SQL = """
CREATE TABLE facts (id INTEGER PRIMARY KEY, name TEXT, value REAL, body BLOB);
CREATE INDEX by_name ON facts (name);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000)
INSERT INTO facts SELECT i, hex(randomblob(8)), random() / 1e9, randomblob(300) FROM n;
"""
_SQL_ROUND = """
UPDATE facts SET value = value + 1, name = hex(randomblob(8)) WHERE id % 17 = abs(random()) % 17;
"""

_OBJECTS = """
import random
random.seed(1)
table = {}
while True:
    key = random.randrange(600_000)
    table[key] = [key, str(key) * 3, {"n": key, "of": (key, key + 1)}]
"""

_MATRIX = """
import numpy as np
generator = np.random.default_rng(1)
left = generator.normal(size=(2500, 2500)); right = generator.normal(size=(2500, 2500))
history = [np.zeros_like(left) for _ in range(4)]
step = 0
while True:
    product = left @ right
    history[step % 4] = product / np.abs(product).max()
    left += 1e-3 * history[step % 4]
    step += 1
"""

_PERL = (
    "srand(1); my %h; while (1) { my $k = int(rand(700000)); $h{$k} .= chr(65 + $k % 26) x 40; "
    'delete $h{int(rand(700000))} if rand() < 0.2; $h{$k} = "" if length($h{$k}) > 200; }'
)

_AWK = (
    "BEGIN { srand(1); while (1) { k = int(rand() * 900000); t[k] = t[k] + 1; "
    'u[k] = "line " k " of many"; } }'
)

_NODE = """
const table = new Map(); let n = 0;
setInterval(() => { for (let i = 0; i < 20000; i++) { n = (n * 1103515245 + 12345) % 2147483648;
  const k = n % 500000; table.set(k, {key: k, text: "value " + n, list: [n, k, i]}); } }, 5);
"""

_SAM = """
import random, sys
random.seed(2)
out = sys.stdout
out.write("@HD\\tVN:1.6\\n@SQ\\tSN:chr1\\tLN:200000000\\n")
n = 0
while True:
    n += 1
    bases = "".join(random.choices("ACGT", k=100))
    out.write(f"r{n}\\t0\\tchr1\\t{random.randrange(1, 199999000)}\\t60\\t100M\\t*\\t0\\t0\\t{bases}\\t{'I' * 100}\\n")
"""

_SORT = (
    f"{sys.executable} {{folder}}/sam.py | "
    "samtools sort -m 700M -o {folder}/out.bam -T {folder}/t -"
)

#: The server's program, as Debian has it in its package of tools: what it does goes by its name.
REDIS = "redis-check-rdb"


def link_redis(folder: Path) -> None:
    """Make ``redis-server`` in a folder."""
    with contextlib.suppress(FileExistsError):
        (folder / "redis-server").symlink_to(shutil.which(REDIS) or REDIS)


_REDIS = (
    "{folder}/redis-server --port 0 --unixsocket {folder}/s --save '' --appendonly no >/dev/null 2>&1 & "
    "while ! redis-cli -s {folder}/s ping >/dev/null 2>&1; do sleep 0.1; done; "
    "exec redis-benchmark -s {folder}/s -n 1000000000 -r 900000 -d 200 -c 8 -t set -q >/dev/null 2>&1"
)


def _script(name: str, text: str) -> Prepare:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


def _sql(folder: Path) -> None:
    (folder / "work.sql").write_text(_SQL + _SQL_ROUND * 400)


PROGRAMS = (
    Program(
        "bwa",
        "aligner",
        (
            "sh",
            "-c",
            "while :; do bwa mem -t2 -K 30000000 {folder}/ref.fa {folder}/reads.fq >/dev/null 2>&1; done",
        ),
        ("bwa",),
        _genome,
    ),
    Program(
        "samtools-sort",
        "sorter of alignments",
        (
            "sh",
            "-c",
            _SORT,
        ),
        ("samtools",),
        _script("sam.py", _SAM),
    ),
    Program(
        "sort",
        "sorter",
        (
            "sh",
            "-c",
            "seq 1 2000000000 | LC_ALL=C sort -S 500M -T {folder} --parallel=1 >/dev/null",
        ),
        ("sort", "seq"),
    ),
    Program("xz", "compressor", ("xz", "-9", "-T1", "-c", "/dev/urandom"), ("xz",)),
    Program(
        "zstd",
        "compressor",
        ("sh", "-c", "seq 1 20000000000 | zstd -q --ultra -20 --long=27 -T1 -c >/dev/null"),
        ("zstd", "seq"),
    ),
    Program(
        "gcc",
        "compiler",
        ("sh", "-c", "while :; do gcc -O2 -c -o {folder}/big.o {folder}/big.c; done"),
        ("gcc",),
        _source,
    ),
    Program(
        "sqlite",
        "database",
        ("sh", "-c", "exec sqlite3 :memory: <{folder}/work.sql"),
        ("sqlite3",),
        _sql,
    ),
    Program(
        "redis",
        "database under load",
        ("sh", "-c", _REDIS),
        (REDIS, "redis-benchmark", "redis-cli"),
        link_redis,
    ),
    Program("python", "interpreter", (sys.executable, "-I", "-c", _OBJECTS)),
    Program(
        "numpy",
        "numeric code",
        (sys.executable, "-I", "-c", _MATRIX),
        environment=(("OPENBLAS_NUM_THREADS", "2"),),
    ),
    Program("perl", "interpreter", ("perl", "-e", _PERL), ("perl",)),
    Program("awk", "interpreter", ("awk", _AWK), ("awk",)),
    Program(
        "node",
        "just-in-time compiler",
        ("node", "-e", _NODE),
        ("node",),
        environment=(("UV_USE_IO_URING", "0"),),
    ),
)


def available(names: list[str] | None = None) -> list[Program]:
    """Return the programs that can run here, of those that are named."""
    return [
        one
        for one in PROGRAMS
        if (not names or one.name in names) and all(shutil.which(need) for need in one.needs)
    ]


@contextlib.contextmanager
def running(program: Program, folder: Path) -> Iterator[int]:
    """Give the pid of a program at work, in a session of its own; it and its children end with the block."""
    program.prepare(folder)
    process = subprocess.Popen(
        [word.replace("{folder}", str(folder)) for word in program.command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, **dict(program.environment)},
        start_new_session=True,
    )
    try:
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
