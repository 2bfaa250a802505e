"""Timer descriptors whose description does not tell whether they run."""

from __future__ import annotations

import struct
from pathlib import Path

from snaplib.criu import find_criu
from snaplib.criu.images import image_entries
from snaplib.criu.protocol import image_messages
from snaplib.criu.timers import with_running_timers


def test_only_periodic_timers_that_had_expired_are_set_anew(tmp_path: Path) -> None:
    criu = find_criu()
    message = image_messages(criu, "fdinfo").file_entry
    data = bytes(8)
    #: Counted, seconds and nanoseconds left, the same of the period.
    timers = [(3, 0, 0, 1, 20), (0, 0, 0, 1, 20), (3, 0, 7, 1, 20), (1, 0, 0, 0, 0)]
    for ticks, *figures in timers:
        entry = message(
            type=message.DESCRIPTOR.fields_by_name["type"]
            .enum_type.values_by_name["TIMERFD"]
            .number
        )
        entry.id = entry.tfd.id = 1
        entry.tfd.flags = entry.tfd.clockid = entry.tfd.settime_flags = 0
        entry.tfd.ticks = ticks
        entry.tfd.vsec, entry.tfd.vnsec, entry.tfd.isec, entry.tfd.insec = figures
        for name in entry.tfd.fown.FindInitializationErrors():
            setattr(entry.tfd.fown, name, 0)
        content = entry.SerializeToString()
        data += struct.pack("<I", len(content)) + content
    image = tmp_path / "files.img"
    image.write_bytes(data)
    with_running_timers(criu, tmp_path)
    changed = [entry.tfd for entry in image_entries(image, message)]
    assert [(one.ticks, one.vsec, one.vnsec, one.isec, one.insec) for one in changed] == [
        (3, 1, 20, 1, 20),
        *timers[1:],
    ]


def test_a_task_without_open_files(tmp_path: Path) -> None:
    with_running_timers(find_criu(), tmp_path)
