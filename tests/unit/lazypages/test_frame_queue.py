"""Which frame comes next."""

from __future__ import annotations

import threading

from snaplib.checkpoint.lazypages.framequeue import FrameQueue, Wanted


def taken(queue: FrameQueue, count: int) -> list[int]:
    """The next frames."""
    found = [queue.take() for _ in range(count)]
    return [one.frame for one in found if one is not None]


def test_the_first_ones_come_before_it_is_open() -> None:
    """Then the others in order, and what is not wanted never."""
    queue = FrameQueue(6, [0, 2, 3, 5], [5, 4, 3])
    assert taken(queue, 2) == [5, 3]
    queue.open()
    assert taken(queue, 2) == [0, 2]
    queue.close()
    assert queue.take() is None


def test_what_somebody_waits_for_comes_first() -> None:
    """And then what follows it; at the end what is before."""
    queue = FrameQueue(6, range(6), [5])
    queue.urge(2, 4096)
    assert queue.take(urgent=True) == Wanted(2, 4096)
    queue.open()
    assert taken(queue, 5) == [5, 3, 4, 0, 1]


def test_it_comes_once() -> None:
    """However many wait for it; and again where a fork needs it."""
    queue = FrameQueue(3, range(3), [])
    queue.open()
    queue.urge(1, 0)
    queue.urge(1, 4096)
    assert taken(queue, 3) == [1, 2, 0]
    queue.urge(1, 0)
    queue.done(1)
    queue.put([1])
    assert queue.take() == Wanted(1)


def test_waiting() -> None:
    """A frame that was fetched early is put where it belongs when somebody waits for it, or all is restored."""
    queue = FrameQueue(3, range(3), [0, 1, 2])
    assert taken(queue, 3) == [0, 1, 2]
    put: list[tuple[int, bool]] = []
    threads = [
        threading.Thread(target=lambda frame=frame: put.append((frame, queue.wait_to_put(frame))))
        for frame in range(2)
    ]
    for thread in threads:
        thread.start()
    queue.urge(1, 0)
    threads[1].join(20)
    assert put == [(1, True)]
    queue.open()
    threads[0].join(20)
    assert put == [(1, True), (0, True)]
    queue.close()
    assert not queue.wait_to_put(2)
