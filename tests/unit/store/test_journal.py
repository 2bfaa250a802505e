"""The journal of a key: the order of runs, and what it knows of a snapshot."""

from __future__ import annotations

import datetime as dt

import attrs


def begin(journal, how="started", **more):
    """Note that a run has begun."""
    return journal.put_begin(journal.begin(how, snapshot=None, host="h", command=("x",), **more))


def test_runs_keep_their_order_when_the_clock_jumps_back(memory_store, clock) -> None:
    """So that what comes after an end is counted from there."""
    journal = memory_store.journal("k")
    first = begin(journal)
    journal.put_end(attrs.evolve(first, outcome="ended", exit_code=1))
    clock.now -= dt.timedelta(hours=1)
    begin(journal)
    clock.now -= dt.timedelta(hours=1)
    begin(journal, "restored")
    assert [run.how for run in journal.runs()] == ["started", "started", "restored"]
    assert journal.attempts() == 2


def test_whether_a_task_may_have_outlived_its_snapshot(memory_store, clock) -> None:
    journal = memory_store.journal("k")
    assert not journal.outlived("20261128T000000.000000-abcdef"), "nothing is known of it"
    saved = {}
    for number, outcome in enumerate(["saved", None, "failed", "saved"]):
        clock.now += dt.timedelta(minutes=1)
        run = begin(journal)
        clock.now += dt.timedelta(minutes=1)
        with memory_store.begin("k") as writer:
            saved[number] = writer.id
        if outcome:
            saved_as = saved[number] if outcome == "saved" else None
            journal.put_end(attrs.evolve(run, outcome=outcome, saved_as=saved_as))
    assert [journal.outlived(saved[number]) for number in range(4)] == [False, True, True, False]
    clock.now += dt.timedelta(minutes=1)
    journal.put_begin(journal.begin("restored", snapshot=saved[3], host="here", command=("true",)))
    assert journal.outlived(saved[3]), "it has been gone on from"
    assert not journal.outlived(saved[0])
