"""What a store's speed is, as measured on the way."""

from __future__ import annotations

import contextlib

from snaplib.store.throughput import Meter


def test_writes_that_overlap_share_their_time():
    """Two writes of a second each, half of it together, are one and a half seconds."""
    now = [0.0]
    meter = Meter(lambda: now[0])
    one, other = meter.sending(3 << 20), meter.sending(3 << 20)
    one.__enter__()
    now[0] = 0.5
    other.__enter__()
    now[0] = 1.0
    one.__exit__(None, None, None)
    now[0] = 1.5
    other.__exit__(None, None, None)
    now[0] = 100.0
    measured = meter.read()
    assert (measured.sent_bytes, measured.sending_s) == (6 << 20, 1.5)
    assert measured.sent_bytes_per_s == (6 << 20) / 1.5
    assert measured.received_bytes_per_s is None


def test_failures_cost_time_and_bring_no_bytes():
    """A link that loses half of what is sent is half as fast."""
    now = [0.0]
    meter = Meter(lambda: now[0])
    with contextlib.suppress(OSError), meter.sending(1 << 20):
        now[0] = 1.0
        raise OSError
    with meter.sending(1 << 20):
        now[0] = 2.0
    assert meter.read().sent_bytes_per_s == (1 << 20) / 2


def test_small_writes_tell_the_latency():
    """They say how long a request takes and not how fast bytes go."""
    now = [0.0]
    meter = Meter(lambda: now[0])
    for _ in range(4):
        with meter.sending(100):
            now[0] += 0.25
    with meter.receiving(1 << 20):
        now[0] += 2
    measured = meter.read()
    assert measured.write_latency_s == 0.25
    assert measured.sent_bytes_per_s is None
    assert measured.received_bytes_per_s == (1 << 20) / 2
