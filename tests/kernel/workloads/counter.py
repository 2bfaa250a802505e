"""Counts in a shared file, in three processes and two more threads, while one of them forks on.

Slots of 8 bytes: 0 main, 1 its thread, 2 the child's thread, 3 the grandchild, 4 forks.
"""

import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    with Path(sys.argv[1]).open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 4096)

    def count(slot: int) -> None:
        number = 0
        while True:
            number += 1
            memory[slot * 8 : slot * 8 + 8] = number.to_bytes(8, "little")
            time.sleep(0.001)

    if os.fork() == 0:
        if os.fork() == 0:
            count(3)
        threading.Thread(target=count, args=(2,)).start()
        forks = 0
        while True:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            # vfork(2): the parent waits in the kernel, out of reach of a stop signal.
            subprocess.run(["/bin/true"], check=True)
            forks += 1
            memory[32:40] = forks.to_bytes(8, "little")
    threading.Thread(target=count, args=(1,)).start()
    count(0)


main()
