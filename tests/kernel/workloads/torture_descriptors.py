"""Opens, copies, passes on and closes descriptors in several processes and threads until it is killed."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import sys
import threading

PROCESSES, THREADS = 4, 4
LOW, HIGH = 100, 300


def churn(folder: str, seed: int) -> None:
    chance = random.Random(seed)
    mine: list[int] = []
    while True:
        with contextlib.suppress(OSError):
            what = chance.randrange(12)
            if what == 0:
                mine.append(os.open(f"{folder}/{chance.randrange(9)}", os.O_RDWR | os.O_CREAT))
            elif what == 1:
                mine.extend(os.pipe())
            elif what == 2 and mine:
                mine.append(os.dup(chance.choice(mine)))
            elif what == 3 and mine:
                # Also over descriptors that other threads have open just now.
                target = chance.randrange(LOW, HIGH)
                os.dup2(chance.choice(mine), target, inheritable=bool(chance.randrange(2)))
                mine.append(target)
            elif what == 4 and mine:
                os.write(chance.choice(mine), b"x" * chance.randrange(1, 100))
            elif what == 5 and mine:
                os.lseek(chance.choice(mine), chance.randrange(1 << 40), os.SEEK_SET)
            elif what == 6:
                pass_on(mine, chance)
            elif what == 7:
                mine.append(os.eventfd(0))
                mine.append(os.memfd_create("torture"))
                mine.append(select.epoll().fileno())
            elif what == 8 and mine:
                os.set_inheritable(chance.choice(mine), bool(chance.randrange(2)))
            elif what == 9 and chance.randrange(20) == 0:
                os.closerange(chance.randrange(LOW, HIGH), HIGH + 1)
            elif what == 10 and chance.randrange(20) == 0:
                # Not vfork, as subprocess does: who waits for a stopped vfork child cannot be stopped.
                pid = os.fork()
                if pid == 0:
                    os.execlp("sleep", "sleep", "0.05")
                os.waitpid(pid, 0)
            while len(mine) > 40 or (mine and what == 11):
                os.close(mine.pop(chance.randrange(len(mine))))
                what = 0


def pass_on(mine: list[int], chance: random.Random) -> None:
    """Send a descriptor through a unix socket, and receive it as another one."""
    one, other = socket.socketpair()
    with one, other:
        if mine:
            socket.send_fds(one, [b"x"], [chance.choice(mine)])
            mine.extend(socket.recv_fds(other, 1, 1)[1])


def main() -> None:
    folder = sys.argv[1]
    number = next((one for one in range(1, PROCESSES) if os.fork() == 0), 0)
    for thread in range(THREADS):
        threading.Thread(target=churn, args=(folder, number * THREADS + thread)).start()
    if number == 0:
        print("ready", flush=True)


main()
