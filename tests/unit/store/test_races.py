"""Dumps, removals and clean-ups of one store at the same time: whatever the order of what they do, nothing is lost."""

from __future__ import annotations

import functools
import threading

import pytest

from snaplib.errors import StoreError
from snaplib.store import PAGE_BYTES, PageLogOptions, Store
from snaplib.testing.memories import SampleMemory, check
from snaplib.testing.stores import MemoryBackend

#: Frames of two blocks.
OPTIONS = PageLogOptions(codec="zstd", frame_bytes=32 * PAGE_BYTES, workers=1)
PAGES = 72
MANY = 10**6


class Gate:
    """Lets somebody's requests to the store pass, as many as are allowed."""

    def __init__(self):
        self._changed = threading.Condition()
        self._left = 0
        self._waits = False
        self._over = False
        self.passed = []

    def __call__(self, request):
        """Wait until a request may pass."""
        with self._changed:
            while not self._left:
                self._waits = True
                self._changed.notify_all()
                self._changed.wait()
            self._left -= 1
            self.passed.append(request)

    def allow(self, count):
        """Let so many more pass, and wait until they have, and the next one waits; or there is none."""
        with self._changed:
            self._left, self._waits = count, not count and self._waits
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waits or self._over, timeout=60)
            assert self._waits or self._over

    def end(self):
        """Say that nothing more comes."""
        with self._changed:
            self._over = True
            self._changed.notify_all()


class GatedBackend:
    """A backend whose requests wait at a gate, each before it is made."""

    def __init__(self, backend, gate):
        self._backend = backend
        self._gate = gate

    def __getattr__(self, name):
        found = getattr(self._backend, name)
        if not callable(found) or name in ("limit_by", "throughput"):
            return found

        def request(*arguments, **options):
            self._gate(f"{name} {arguments[0]}")
            return found(*arguments, **options)

        return request


class Actor:
    """Somebody who does something with a store of their own over the same backend, in a thread, step by step."""

    def __init__(self, backend, work):
        self.gate = Gate()
        store = Store(GatedBackend(backend, self.gate))
        self.failure = None
        self.result = None

        def run():
            try:
                self.result = work(store)
            except BaseException as error:  # noqa: BLE001 - raised again in `finish`
                self.failure = error
            finally:
                self.gate.end()

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def step(self, count):
        """Let so many requests pass."""
        self.gate.allow(count)

    def finish(self):
        """Let all the others pass; returns what was done."""
        self.gate.allow(MANY)
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        return self.result


def told(store, changed=(60, 70)):
    """A task that was restored is copied ahead anew and dumped; what it had changed since is stored."""
    memory = SampleMemory(store, PAGES, OPTIONS, find=True)
    memory.write(changed)
    with memory.writer:
        memory.copy_ahead()
        memory.declare()
        return memory.writer.commit(), memory.content


@functools.cache
def written():
    """Two snapshots of which the second has pages of the first, which is gone; returns the objects and the second."""
    backend = MemoryBackend()
    store = Store.over(backend, create=True)
    first, _ = told(store, changed=())
    second, content = told(store)
    assert [one.owner for one in second.segments] == [first.id, second.id]
    store.remove(first.id)
    check(store, second.id, content)
    # The next one has pages of both.
    third, content = told(store)
    assert third.owners == {first.id, second.id}
    store.remove(third.id)
    return backend.objects, second


def history():
    """A new backend with that; returns the second snapshot as well."""
    objects, second = written()
    backend = MemoryBackend()
    backend.objects = {name: bytearray(content) for name, content in objects.items()}
    return backend, second


def judge(backend, made):
    """Look at what is left: a new snapshot that is whole, and nothing else that it does not need."""
    snapshot, content = made
    store = Store.over(backend)
    store.sweep()
    check(store, snapshot.id, content)
    assert store.ids() == [snapshot.id]
    needed = {f"objects/{snapshot.id}/{name}" for name in snapshot.objects}
    needed |= {f"objects/{one.owner}/{one.name}" for one in snapshot.needed}
    notes = {f"objects/{one}/key" for one in snapshot.owners - {snapshot.id}}
    assert set(backend.names("objects")) == needed | notes


def moments(work):
    """After how many requests somebody may be interrupted: of a dump, when it claims what it needs and now and then."""
    backend, second = history()
    actor = Actor(backend, lambda store: work(store, second))
    actor.finish()
    passed = actor.gate.passed
    claims = [at for at, request in enumerate(passed) if request.endswith("/uses")]
    if not claims:
        return range(len(passed) + 1)
    return sorted({*range(0, len(passed), 12), *range(claims[0] - 3, claims[0] + 4), len(passed)})


def dump(store, _second):
    """Find pages in the newest snapshot."""
    return told(store)


def remove(store, second):
    """Remove it."""
    store.remove(second.id)


def sweep(store, _second):
    """Clean up, as whoever begins a dump of another task."""
    store.sweep()


@pytest.mark.slow
@pytest.mark.parametrize("dump_first", [True, False])
def test_a_removal_in_a_dump(dump_first):
    """Each is cut in two, at any place."""
    kinds = set()
    for begun in moments(dump):
        for gone in moments(remove):
            backend, second = history()
            dumper = Actor(backend, lambda store: dump(store, None))
            remover = Actor(backend, lambda store, second=second: remove(store, second))
            order = [(dumper, begun), (remover, gone)]
            order = order if dump_first else order[::-1]
            for actor, count in order:
                actor.step(count)
            for actor, _ in order:
                actor.finish()
            judge(backend, dumper.result)
            kinds.add(dumper.result[0].kind)
    assert kinds == {"full", "incremental"}


@pytest.mark.slow
def test_a_removal_while_others_clean_up():
    """Who has looked for claims already, and not yet for manifests, sees neither: nor may they believe it then."""
    kinds = set()
    for seen in moments(sweep):
        for begun in moments(dump):
            backend, second = history()
            sweeper = Actor(backend, lambda store: sweep(store, None))
            dumper = Actor(backend, lambda store: dump(store, None))
            sweeper.step(seen)
            dumper.step(begun)
            Store.over(backend).remove(second.id)
            sweeper.finish()
            made = dumper.finish()
            judge(backend, made)
            kinds.add(made[0].kind)
    assert kinds == {"full", "incremental"}


@pytest.mark.parametrize("loss", ["gone", "cut"])
def test_a_segment_that_is_lost_is_not_lent(memory, loss):
    """What was found in it before would be lost with it."""
    store = Store.over(memory, create=True)
    first, _ = told(store)
    name = f"objects/{first.id}/segment-0000"
    if loss == "gone":
        del memory.objects[name]
    else:
        del memory.objects[name][-1:]
    second, content = told(store)
    assert second.kind == "full"
    check(store, second.id, content)


def test_a_segment_that_is_lost_meanwhile(memory):
    """Nothing is committed that refers to it; and the next dump stores everything."""
    store = Store.over(memory, create=True)
    first, _ = told(store)
    sample = SampleMemory(store, PAGES, OPTIONS, find=True)
    sample.copy_ahead()
    assert sample.writer.pages.found_pages
    del memory.objects[f"objects/{first.id}/segment-0000"]
    sample.declare()
    with pytest.raises(StoreError, match="segment-0000, where an earlier snapshot has pages"):
        sample.writer.commit()
    assert store.ids() == [first.id]
    second, content = told(store)
    assert second.kind == "full"
    check(store, second.id, content)


def test_nothing_is_found_where_a_restore_failed(memory):
    """Its bytes may be others than those that were written."""
    store = Store.over(memory, create=True)
    first, _ = told(store)
    store.distrust(first.id)
    second, content = told(store)
    assert second.kind == "full"
    check(store, second.id, content)
    third, content = told(store)
    assert third.parent == second.id
