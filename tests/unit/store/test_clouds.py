"""Each cloud's own way of speaking: what goes wrong is told clearly, or passes, and where credentials come from."""

from __future__ import annotations

import json

import pytest

from snaplib.errors import StoreDenied, StoreError, StoreFull, StoreUnreachable, UsageError
from snaplib.store import Store
from snaplib.store.remote import open_remote
from snaplib.store.remote.objects import PART_BYTES
from snaplib.testing.s3 import FaultyProxy
from snaplib.testing.snapshots import sample_snapshot


class Cloud:
    """A store's address, a proxy on the way there, and what is secret."""

    def __init__(self, scheme, proxy, url, secret):
        self.scheme, self.proxy, self.url, self.secret = scheme, proxy, url, secret


@pytest.fixture(params=["s3", "gs", "az"])
def cloud(request, clouds, monkeypatch):
    """Each of them, with a bucket of its own."""
    if request.param == "gs":
        google = clouds.google()
        _set(monkeypatch, google.environment())
        google.fault = lambda _request: None
        yield Cloud("gs", google, clouds.url("gs"), google.token)
        google.fault = lambda _request: None
        return
    server = clouds.s3() if request.param == "s3" else clouds.azurite()
    environment = server.environment()
    secret = environment.get("AWS_SECRET_ACCESS_KEY") or environment["AZURE_STORAGE_ACCOUNT_KEY"]
    _set(monkeypatch, environment)
    with FaultyProxy(clouds.server(request.param)) as proxy:
        yield Cloud(request.param, proxy, clouds.url(request.param, proxy.endpoint), secret)


def _set(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_a_missing_bucket_is_told(cloud):
    """In one line that says what is missing."""
    there = cloud.url.partition("://")[2].partition("/")[0]
    with pytest.raises(StoreError, match="the bucket does not exist") as caught:
        Store.open(cloud.url.replace(there, "no-such-bucket-here"))
    assert not isinstance(caught.value, StoreUnreachable)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", ["401", "403"])
def test_refused_credentials_are_told(cloud, status, capfd):
    """They are not tried for long, and nothing secret is told."""
    before = len(cloud.proxy.requests)
    cloud.proxy.fault = lambda request: None if "computeMetadata" in request.path else status
    with pytest.raises(StoreDenied, match="refuses access") as caught:
        Store.open(cloud.url)
    told = f"{caught.value!r} {caught.value} {capfd.readouterr()}"
    assert cloud.secret not in told
    assert "Bearer" not in told
    assert len(cloud.proxy.requests) - before <= 6


def test_a_full_store_is_told(cloud):
    """By its status."""
    store = Store.open(cloud.url)
    cloud.proxy.fault = lambda request: "507" if request.method in ("PUT", "POST") else None
    with pytest.raises(StoreFull, match="no room left"):
        sample_snapshot(store)


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut", "lose"])
def test_passing_faults_are_overcome(cloud, fault):
    """Every third request fails, in each way, and the snapshot is whole; a lost answer is no loss."""
    store = Store.open(cloud.url)
    begun = len(cloud.proxy.requests)
    cloud.proxy.fault = lambda request: fault if (request.number - begun) % 3 == 2 else None
    snapshot = sample_snapshot(store)
    cloud.proxy.fault = lambda _request: None
    assert store.verify(snapshot.id).ok
    assert [one.id for one in store.snapshots()] == [snapshot.id]


def test_conditions_are_heeded(cloud):
    """A name is put once: the store says so itself."""
    store = Store.open(cloud.url)
    with store.begin("key"):
        assert store.backend._conditional is True
    backend = open_remote(cloud.url)
    backend.put_new("x", b"1")
    with pytest.raises(FileExistsError):
        backend.put_new("x", b"2")
    assert backend.get("x") == b"1"
    # An answer may have been lost: the same again is ours.
    backend.put_new("x", b"1")


def test_lists_of_many_pages(cloud, monkeypatch):
    """More objects than come with one answer are all listed, and deleted."""
    ask = cloud.proxy.ask
    asked = []

    def in_pages(method, path, body, headers):
        # Azure's requests are signed with all that is in them: there it is one page.
        if method == "GET" and "list-type=2" in path:
            asked.append(path)
            path += "&max-keys=10"
        return ask(method, path, body, headers)

    monkeypatch.setattr(cloud.proxy, "ask", in_pages)
    backend = open_remote(cloud.url)
    for number in range(25):
        backend.put_new(f"folder/{number:02d} +=@,:()%25", b"x")
    assert len(set(backend.names("folder"))) == 25
    assert cloud.scheme == "az" or len(asked) == 3
    backend.delete_folder("folder")
    assert list(backend.names("")) == []


def test_parts(cloud):
    """A large object goes in parts, ranges of it come back, and one that is given up never appears."""
    backend = open_remote(cloud.url)
    content = bytes(range(256)) * (10 << 12) + bytes(PART_BYTES)
    writer = backend.create("objects/x/segment-0000", bulk=True)
    assert writer.append(content) == 0
    writer.commit()
    reader = backend.open("objects/x/segment-0000", bulk=True)
    assert reader.size_bytes == len(content)
    assert reader.read(PART_BYTES - 100, 5 << 20) == content[PART_BYTES - 100 :][: 5 << 20]
    assert reader.read(len(content) - 3, 100) == content[-3:]
    writer = backend.create("objects/x/segment-0001", bulk=True)
    writer.append(content)
    writer.abort()
    assert list(backend.names("objects")) == ["objects/x/segment-0000"]


def test_a_part_that_fails_is_sent_again(cloud):
    """Nobody else could: the task's memory is not kept."""
    backend = open_remote(cloud.url)
    failed = []

    def fault(request):
        if request.size_bytes >= PART_BYTES and len(failed) < 2:
            failed.append(request)
            return "503"
        return None

    cloud.proxy.fault = fault
    writer = backend.create("large", bulk=True)
    content = bytes(range(256)) * (20 << 12)
    writer.append(content)
    writer.commit()
    assert len(failed) == 2
    assert backend.open("large", bulk=True).read(0, len(content)) == content


def test_googles_credentials(clouds, monkeypatch, tmp_path):
    """From the metadata service of a machine, asked once; a key file that is none is one clear line."""
    google = clouds.google()
    _set(monkeypatch, google.environment())
    before = google.tokens_given
    store = Store.open(clouds.url("gs"))
    sample_snapshot(store)
    # One for what we repeat, one for what obstore repeats.
    assert 1 <= google.tokens_given - before <= 2
    broken = tmp_path / "key.json"
    broken.write_text(json.dumps({"type": "service_account", "private_key": "hunter2"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(broken))
    with pytest.raises(UsageError, match="cannot be used") as caught:
        Store.open(clouds.url("gs"))
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_azures_credentials(clouds, monkeypatch, capfd):
    """The account may be in the environment too; a wrong key is told, and not what it is."""
    azurite = clouds.azurite()
    url = clouds.url("az").replace("account=devstoreaccount1&", "")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1")
    _set(monkeypatch, azurite.environment())
    sample_snapshot(Store.open(url))
    wrong = "d3Jvbmcga2V5IHdyb25nIGtleSB3cm9uZyBrZXk="
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", wrong)
    with pytest.raises(StoreDenied, match="refuses access") as caught:
        Store.open(url)
    assert wrong not in f"{caught.value!r} {capfd.readouterr()}"
