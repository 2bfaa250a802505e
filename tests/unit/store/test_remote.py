"""Stores in a bucket: the same as a folder from above, and what goes wrong on the way."""

from __future__ import annotations

import re
import threading
import time
import urllib.request

import attrs
import pytest

from snaplib.errors import (
    NotAStore,
    StoreError,
    StoreUnreachable,
    UsageError,
)
from snaplib.store import Store
from snaplib.store.remote import link, open_remote
from snaplib.store.remote.address import RemoteAddress
from snaplib.store.remote.awsprofile import aws_profile
from snaplib.store.remote.lease import RemoteHold
from snaplib.store.remote.objects import PART_BYTES
from snaplib.testing.memories import SMALL, SampleMemory, check
from snaplib.testing.s3 import FaultyProxy, S3Server
from snaplib.testing.snapshots import NOISE, feed, sample_snapshot
from snaplib.testing.snapshots import SAMPLE_TASK as TASK


@pytest.fixture(scope="module")
def server():
    with S3Server() as running:
        yield running


@pytest.fixture
def bucket(server, monkeypatch):
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server.new_bucket()


@pytest.fixture
def proxy(server, bucket, monkeypatch):
    with FaultyProxy(server.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


@pytest.fixture(params=["memory", "s3", "gs", "az"])
def remote(request, tmp_path, monkeypatch):
    """A backend of each kind, empty."""
    if request.param == "memory":
        return open_remote(f"memory://{tmp_path.name}")
    if request.param == "s3":
        return open_remote(f"s3://{request.getfixturevalue('bucket')}/some/folder")
    clouds = request.getfixturevalue("clouds")
    server = clouds.google() if request.param == "gs" else clouds.azurite()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return open_remote(clouds.url(request.param))


def test_objects(remote):
    """What is put can be read, in parts, listed, replaced by nobody, and deleted."""
    writer = remote.create("objects/one/segment-0000", bulk=True)
    assert (writer.append(b"abc"), writer.append(memoryview(b"defg"))) == (0, 3)
    writer.commit()
    remote.put_new("manifests/a%2Fb +=@,:()/x.json", b"1")

    reader = remote.open("objects/one/segment-0000", bulk=True)
    room = memoryview(bytearray(16))
    assert (reader.size_bytes, reader.read(2, 3), reader.read(5, 100)) == (7, b"cde", b"fg")
    assert (reader.read(7, 1), reader.read(100, 1)) == (b"", b"")
    assert (reader.read_into(1, room, 16), bytes(room[:6])) == (6, b"bcdefg")
    assert remote.get("objects/one/segment-0000") == b"abcdefg"
    assert set(remote.names("")) == {"objects/one/segment-0000", "manifests/a%2Fb +=@,:()/x.json"}
    assert list(remote.names("manifests")) == ["manifests/a%2Fb +=@,:()/x.json"]
    assert list(remote.names("manif")) == []
    with pytest.raises(FileExistsError):
        remote.put_new("manifests/a%2Fb +=@,:()/x.json", b"2")
    assert remote.get("manifests/a%2Fb +=@,:()/x.json") == b"1"
    for missing in (remote.get, remote.open):
        with pytest.raises(FileNotFoundError):
            missing("objects/none")
    remote.delete("objects/none")
    remote.delete_folder("objects/one")
    assert list(remote.names("objects")) == []


def test_large_objects(remote):
    """What is larger than a part goes in several, from several threads, and comes back whole."""
    writer = remote.create("objects/one/large")
    pieces = [bytes([number]) * (3 << 20) for number in range(7)]
    offsets = {}

    def append(number):
        offsets[number] = writer.append(pieces[number])

    threads = [threading.Thread(target=append, args=(number,)) for number in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.commit()

    assert writer.size_bytes == 21 << 20 > 2 * PART_BYTES
    reader = remote.open("objects/one/large")
    for number, offset in offsets.items():
        assert reader.read(offset, 3 << 20) == pieces[number]


def test_an_abandoned_upload_leaves_nothing(remote):
    """An object that is given up does not appear."""
    for size in (10, 3 * PART_BYTES):
        writer = remote.create("objects/one/x")
        writer.append(bytes(size))
        writer.abort()
        writer.abort()
        with pytest.raises(StoreError, match="given up"):
            writer.append(b"x")
    assert list(remote.names("")) == []


def test_snapshots(remote):
    """A store in a bucket does what one in a folder does."""
    with pytest.raises(NotAStore):
        Store.over(remote)
    store = Store.over(remote, create=True)
    snapshot = sample_snapshot(store)
    again = Store.over(remote)

    assert again.snapshots() == [snapshot]
    assert again.latest(snapshot.key) == snapshot
    assert again.verify(snapshot.id).ok
    with again.read(snapshot.id) as reader:
        assert len(reader.pages.read(TASK, 0x400000, 1)) == 4096
    with store.begin("key") as writer:
        writer.pages.run(TASK, 0, 40, 4)
        feed(writer.pages, NOISE)
    assert store.sweep() == []
    store.mark_ended(snapshot.key, 0)
    assert again.latest(snapshot.key) is None
    store.remove(snapshot.id)
    assert [name for name in remote.names("") if name.startswith(("objects", "manif"))] == []


def test_a_store_is_the_same_in_a_bucket_and_in_a_folder(remote, tmp_path):
    """Objects copied one by one from a bucket into a folder are a store."""
    snapshot = sample_snapshot(Store.over(remote, create=True))
    for name in remote.names(""):
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(remote.get(name))

    assert Store.open(tmp_path / "copy").verify(snapshot.id).ok


def test_something_else_is_left_alone(remote):
    """A folder of a bucket with other things in it does not become a store."""
    remote.put_new("thesis.tex", b"x")
    with pytest.raises(NotAStore):
        Store.over(remote, create=True)
    assert list(remote.names("")) == ["thesis.tex"]


def test_debris_goes_when_it_is_old(remote):
    """Nobody removes what a writer that may live is writing; what no writer renews goes."""
    store = Store.over(remote, create=True)
    kept = sample_snapshot(store)
    hold = remote.hold("objects/20260101T000000.000000-aaaaaa")
    hold._stop()
    remote.put_new("objects/20260101T000000.000000-aaaaaa/segment-0000", b"x")
    remote.put_new("objects/20260101T000000.000000-bbbbbb/segment-0000", b"x")
    assert store.sweep() == []

    impatient = open_remote(remote.address)
    impatient._lease_s = 0
    deadline = time.monotonic() + 20
    swept: list[str] = []
    # The store's clock has seconds.
    while len(swept) < 2 and time.monotonic() < deadline:
        swept += Store.over(impatient).sweep()
    assert sorted(swept) == ["20260101T000000.000000-aaaaaa", "20260101T000000.000000-bbbbbb"]
    assert store.verify(kept.id).ok
    with pytest.raises(StoreError, match="another writer has removed"):
        hold.check()


def test_a_writer_and_a_sweeper_see_each_other(remote):
    """Whatever the order, either the snapshot stays or its writer learns that it does not."""
    folder = "objects/20260101T000000.000000-cccccc"
    hold = remote.hold(folder)
    committed = []

    def keep(_name):
        return bool(committed)

    remote._lease_s = -10  # everything is old
    committed.append(True)  # the manifest is put just before the sweeper looks
    assert remote.delete_abandoned("objects", keep) == []
    hold.check()

    answers = iter([False, True])  # ... and here between its two looks
    assert remote.delete_abandoned("objects", lambda _name: next(answers)) == []
    with pytest.raises(StoreError):
        hold.check()
    hold.release()
    hold.release()


def test_a_writer_that_stood_still_gives_up(remote, monkeypatch):
    """A lease that was not renewed in time is not put again."""
    now = [0.0]
    remote.replace("objects/x/.writer", b"me")
    puts = []
    monkeypatch.setattr(remote, "replace", lambda *_a: puts.append(now[0]))
    hold = RemoteHold(remote, "objects/x/.writer", b"me", lease_s=0.01, clock=lambda: now[0])
    while len(puts) < 3:
        time.sleep(0.001)
    now[0] = 100.0
    hold._thread.join(20)
    assert not hold._thread.is_alive()
    with pytest.raises(StoreError, match="out of reach"):
        hold.check()


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("s3://", "no bucket"),
        ("s3://key:secret@bucket/x", "credentials"),
        ("s3://bucket/a/../b", "folder that is"),
        ("s3://bucket?secret=hunter2", "no option 'secret'"),
        ("s3://bucket?bandwidth=fast", "cannot be meant"),
        ("gs://bucket?region=x", "no option"),
    ],
)
def test_addresses_that_cannot_be_meant(url, match):
    """They are refused before anything is sent, and what may be a secret is not repeated."""
    with pytest.raises(UsageError, match=match) as caught:
        Store.open(url)
    assert "secret@" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"), [("20MB", 20e6), ("1.5Gi", 1.5 * (1 << 30)), ("300", 300), ("5mb/s", 5e6)]
)
def test_bandwidth(text, expected):
    """A limit is bytes a second, with or without a unit."""
    address = RemoteAddress.parse(f"s3://bucket/a%20b/?bandwidth={text}")
    assert (address.bandwidth_bytes_per_s, address.prefix) == (expected, "a b")


def test_aws_profiles(tmp_path):
    """The profile's keys are used where the environment says nothing, and are not where it does."""
    (tmp_path / "config").write_text("[default]\nregion=eu-x\n[profile p]\nendpoint_url=http://e\n")
    (tmp_path / "keys").write_text("[p]\naws_access_key_id=A\naws_secret_access_key=b%c\n")
    environment = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "keys"),
    }
    assert aws_profile(environment) == {"region": "eu-x"}
    environment["AWS_PROFILE"] = "p"
    keys = {"access_key_id": "A", "secret_access_key": "b%c"}
    assert aws_profile(environment) == {"endpoint": "http://e", **keys}
    environment["AWS_ACCESS_KEY_ID"] = "B"
    assert aws_profile(environment) == {"endpoint": "http://e"}


def test_other_clouds_can_be_named(monkeypatch):
    """Google's and Azure's addresses are understood; what is missing is said."""
    assert open_remote("gs://bucket/folder").url == "gs://bucket/folder"
    assert open_remote("az://container/folder?account=me").url == "az://container/folder"
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UsageError, match="Account must be specified"):
        open_remote("az://container/folder")


@pytest.mark.parametrize("folder", ["x", "status-507-quota", "NoSuchBucket507"])
def test_a_dead_endpoint_is_told_at_once(bucket, folder, monkeypatch):
    """Nobody there: one clear line, within seconds, whatever words the address has in it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    begun = time.monotonic()
    with pytest.raises(StoreUnreachable, match="cannot be reached") as caught:
        Store.open(f"s3://{bucket}/{folder}")
    assert time.monotonic() - begun < 60
    assert "\n" not in str(caught.value)


def test_a_slow_store_is_waited_for(proxy, bucket):
    """With time left, one that takes 256 KiB a second gets all of it."""
    store = Store.open(f"s3://{bucket}/x")
    proxy.fault = lambda request: "slow" if "segment" in request.path else None
    store.backend.limit_by(lambda: 60.0)
    snapshot = sample_snapshot(store)
    assert store.verify(snapshot.id).ok


def test_a_hanging_store_does_not_hang_us(proxy, bucket):
    """With a deadline, what hangs is given up in time, and the error says that it is the store."""
    store = Store.open(f"s3://{bucket}/x")
    writer = store.begin("key")
    writer.pages.run(TASK, 0, 40, 4)
    feed(writer.pages, NOISE)
    proxy.fault = lambda _request: "hang"
    store.backend.limit_by(lambda: 2.0)
    begun = time.monotonic()
    with pytest.raises(StoreUnreachable, match="did not answer"):
        writer.commit()
    writer.abort()
    assert time.monotonic() - begun < 60


def test_one_request_that_hangs_is_made_again(proxy, bucket):
    """With time left, a request that gets no answer is not waited for until the end."""
    store = Store.open(f"s3://{bucket}/x")
    hung: list[int] = []

    def fault(request):
        if request.method == "PUT" and "segment" in request.path and not hung:
            hung.append(request.number)
            return "hang"
        return None

    proxy.fault = fault
    store.backend.limit_by(lambda: 8.0)
    snapshot = sample_snapshot(store)
    assert hung
    assert store.verify(snapshot.id).ok


def test_a_large_upload_that_fails_is_told(proxy, bucket):
    """Whoever appends learns of it, and the rest of the upload is not waited for."""
    backend = open_remote(f"s3://{bucket}/x")
    backend.put_new("first", b"")
    proxy.fault = lambda request: "400" if "partNumber" in request.path else None
    writer = backend.create("large")

    def append():
        for _ in range(64):
            writer.append(bytes(1 << 20))

    with pytest.raises(StoreError, match="refuses large"):
        append()
    writer.abort()


def test_a_store_without_conditions(proxy, bucket):
    """Where If-None-Match is not heeded, names are looked at before and after."""
    proxy.fault = lambda _request: "ignore-conditions"
    store = Store.open(f"s3://{bucket}/x")
    snapshot = sample_snapshot(store)
    assert store.backend._conditional is False
    with pytest.raises(FileExistsError):
        store.backend.put_new("snaplib-store.json", b"{}")
    assert store.verify(snapshot.id).ok


def test_lists_that_lag(proxy, bucket):
    """Objects that a list does not show yet are not debris, and a snapshot may be found by its id."""
    store = Store.open(f"s3://{bucket}/x")
    snapshot = sample_snapshot(store)
    proxy.hidden = re.compile("manifests|segment|\\.writer")
    with store.begin("key") as writer:
        assert store.sweep() == []
        proxy.hidden = None
        other = writer.commit()
    assert store.verify(snapshot.id).ok
    assert store.verify(other.id).ok


def test_two_machines_dump_one_key(bucket):
    """Neither destroys the other's."""
    stores = [Store.open(f"s3://{bucket}/x") for _ in range(2)]
    made: list[str] = []

    def work(store):
        made.extend(sample_snapshot(store).id for _ in range(2))

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stores[0].ids()) == sorted(made)
    assert len(made) == 4
    for snapshot_id in made:
        assert stores[0].verify(snapshot_id).ok


def test_bandwidth_is_measured_and_limited(bucket):
    """What is sent takes the time the limit says, and is measured so."""
    backend = open_remote(f"s3://{bucket}/x?bandwidth=2MB")
    backend.put_new("first", b"")
    begun = time.monotonic()
    for number in range(3):
        writer = backend.create(f"object-{number}")
        writer.append(bytes(1_000_000))
        writer.commit()
    took = time.monotonic() - begun
    measured = backend.throughput()
    assert took > 0.9
    assert measured.sent_bytes == 3_000_000
    assert measured.sent_bytes_per_s > 0
    assert measured.small_writes == 1
    assert measured.write_latency_s > 0


def lossy_memory(store):
    """A task of 64 pages that come into segments of 16, uncompressed."""
    return SampleMemory(store, pages=64, options=attrs.evolve(SMALL, codec="none"))


@pytest.fixture
def no_grace(monkeypatch):
    """What is late is given up at once."""
    monkeypatch.setattr(link, "_GRACE_S", 0.1)


def answers_within(store, seconds):
    """Have a store give up what is not done by then."""
    ends = time.monotonic() + seconds
    store.backend.limit_by(lambda: ends - time.monotonic())


def copied_and_dumped(memory):
    memory.copy_ahead()
    return memory.dump()


def out_of_reach(request):
    return "503" if request.method in ("PUT", "DELETE") else None


def test_a_lost_connection_costs_what_was_on_its_way(proxy, bucket, no_grace):
    """What was copied ahead and is whole is not sent again, however often the store fails meanwhile."""
    store = Store.open(f"s3://{bucket}/x")
    memory = lossy_memory(store)
    memory.copy_ahead()
    for fault in (
        out_of_reach,
        lambda request: "503" if "index" in request.path else None,
        lambda request: "503" if "segment" in request.path else None,
    ):
        memory.write(range(5, 25))
        proxy.fault = fault
        answers_within(store, 1.0)
        with pytest.raises(StoreUnreachable):
            copied_and_dumped(memory)
        lost = memory.writer.retract()
        proxy.fault = lambda _request: None
        store.backend.limit_by(None)
        memory.changed |= {one for one in memory.content if memory.number(one) in numbers(lost)}
        memory.changed |= set(range(5, 25))
        # At most the last segment was not whole yet.
        assert len(memory.changed) < 20 + 20
    memory.copy_ahead()
    snapshot, content = memory.dump()
    memory.writer.abort()
    check(store, snapshot.id, content)
    for segment in ("segment-0000", "segment-0001"):
        puts = [one for one in proxy.requests if one.method == "PUT" and segment in one.path]
        assert len(puts) == 1
    # And what is left is what is needed.
    needed = {f"objects/{snapshot.id}/{name}" for name in snapshot.objects}
    assert set(store.backend.names("objects")) == needed


def numbers(pages):
    """The numbers of a set of pages, one by one."""
    runs = zip(pages.begins.tolist(), pages.ends.tolist(), strict=True)
    return {one for begin, end in runs for one in range(begin, end)}


@pytest.mark.parametrize("arrived", [True, False])
def test_a_manifest_of_which_nobody_knows_whether_it_arrived(
    proxy, bucket, no_grace, monkeypatch, arrived
):
    """Its objects stay: there is a whole snapshot, or debris."""
    store = Store.open(f"s3://{bucket}/x")
    memory = lossy_memory(store)
    memory.declare()
    memory.changed.clear()
    tried = []

    def fault(request):
        if request.method == "PUT" and "manifests" in request.path:
            tried.append(request)
            return "lose" if arrived and len(tried) == 1 else "503"
        return "503" if tried else None

    put_new = store.backend.put_new

    def put_in_time(name, data):
        answers_within(store, 3.0)
        put_new(name, data)

    monkeypatch.setattr(store.backend, "put_new", put_in_time)
    proxy.fault = fault
    with pytest.raises(StoreUnreachable):
        memory.writer.commit()
    proxy.fault = lambda _request: None
    store.backend.limit_by(None)
    assert not memory.writer.open
    assert store.ids() == ([memory.writer.id] if arrived else [])
    for one in store.ids():
        check(store, one, memory.content)
    store.backend._lease_s = -10
    assert store.sweep() == ([] if arrived else [memory.writer.id])


def test_uploads_that_are_given_up_leave_no_parts(server, bucket):
    """The parts of an object that is not wanted any more are forgotten by the store."""
    backend = open_remote(f"s3://{bucket}/x")
    writer = backend.create("large", bulk=True)
    writer.append(bytes(3 * PART_BYTES))
    deadline = time.monotonic() + 20
    while "<UploadId>" not in uploads(server, bucket):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    writer.abort()
    assert "<UploadId>" not in uploads(server, bucket)
    assert list(backend.names("")) == []


def uploads(server, bucket):
    """What the server says of uploads under way."""
    with urllib.request.urlopen(f"{server.endpoint}/{bucket}?uploads") as answer:
        return answer.read().decode()
