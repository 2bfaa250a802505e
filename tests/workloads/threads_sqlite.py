"""Threads that write into an open sqlite database; the same rows whenever and wherever it runs.

Usage: threads_sqlite.py DATABASE ROWS.  Four threads each compute ROWS digests, chained, and insert them; the main
thread commits what they queue.  Prints one line for every hundred rows and a digest of the table at the end.
"""

from __future__ import annotations

import hashlib
import queue
import sqlite3
import sys
import threading

THREADS = 4


def work(number: int, rows: int, out: queue.Queue[tuple[int, int, str] | None]) -> None:
    """Chain digests: what one row holds depends on all rows before."""
    digest = hashlib.sha256(str(number).encode()).digest()
    for row in range(rows):
        for _ in range(200):
            digest = hashlib.sha256(digest).digest()
        out.put((number, row, digest.hex()))
    out.put(None)


def main() -> None:
    """Run it."""
    path, rows = sys.argv[1], int(sys.argv[2])
    database = sqlite3.connect(path)
    database.execute(
        "create table digest (thread integer, row integer, value text, primary key (thread, row))"
    )
    out: queue.Queue[tuple[int, int, str] | None] = queue.Queue(maxsize=50)
    threads = [threading.Thread(target=work, args=(number, rows, out)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    running, done = THREADS, 0
    while running:
        item = out.get()
        if item is None:
            running -= 1
            continue
        database.execute("insert into digest values (?, ?, ?)", item)
        done += 1
        if done % 100 == 0:
            database.commit()
            print(f"{done} rows", flush=True)
    database.commit()
    table = hashlib.sha256()
    for line in database.execute("select * from digest order by thread, row"):
        table.update(repr(line).encode())
    print(f"{done} rows, table {table.hexdigest()}", flush=True)


main()
