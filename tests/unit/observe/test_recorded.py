"""A recorded run of six minutes: bwa and samtools in a shell script, all memory armed.

`align.json` is what `snaplib watch --json` printed while it recorded, every fourth line; made by
`sh -c 'while …; do bwa mem … | samtools sort …; done'` on 700,000 pairs of reads of wgsim.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snaplib.observe import Profile, Trace, TraceWriter

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def profiles() -> list[Profile]:
    return list(Trace(DATA / "align.trace"))


def test_it_replays_to_the_numbers_that_were_shown_live(profiles) -> None:
    by_time = {one.monotonic_s: one for one in profiles}
    rows = json.loads((DATA / "align.json").read_text())["rows"]
    assert len(rows) == 97
    for when, resident, dumpable, rate, distinct, descriptors, members, threads, faults in rows:
        profile = by_time[when]
        assert profile.resident_bytes == resident
        assert profile.dumpable_bytes == dumpable
        assert profile.dirty_rate_bytes_s == rate
        assert [profile.distinct_dirty_bytes(age) for age in (1, 5, 30, 120)] == distinct
        assert len(profile.descriptors) == descriptors
        assert len(profile.members) == members
        assert profile.threads == threads
        assert profile.faults.total == faults


def test_it_is_long_enough_and_whole(profiles) -> None:
    assert profiles[-1].monotonic_s - profiles[0].monotonic_s >= 300
    assert {one.dirty_basis for one in profiles} == {"armed"}
    assert profiles[-1].losses.total == 0
    assert profiles[-1].counts.forks > 0


def test_what_is_dirty_grows_with_age_and_is_never_more_than_there_is(profiles) -> None:
    for profile in profiles:
        curve = [profile.distinct_dirty_bytes(age) for age in (0, 0.5, 1, 5, 30, 120, 1000)]
        assert curve == sorted(curve)
        assert curve[-1] <= profile.dumpable_bytes


def test_written_again_it_is_the_same(profiles, tmp_path) -> None:
    with TraceWriter(tmp_path / "again") as writer:
        for profile in profiles:
            writer.write(profile)
    assert list(Trace(tmp_path / "again")) == profiles
