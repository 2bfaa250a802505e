"""What the store's tests share."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path

import pytest

from snaplib.store import Store
from snaplib.testing.azurite import Azurite
from snaplib.testing.gcs import GoogleStorage
from snaplib.testing.s3 import S3Server
from snaplib.testing.stores import MemoryBackend

#: Where tests/clouds/prepare puts what only `make test-clouds` needs.
AZURITE = Path(__file__).parents[3] / ".venv/azurite"


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now = dt.datetime(2026, 11, 23, 22, 15, 30, tzinfo=dt.UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def memory():
    return MemoryBackend()


@pytest.fixture
def memory_store(memory, clock):
    return Store.over(memory, create=True, clock=clock)


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"), create=True)


class Clouds:
    """The servers of the clouds on loopback, each started when it is first asked for."""

    def __init__(self, stack):
        self._stack = stack
        self._running = {}

    def _started(self, name, make):
        if name not in self._running:
            self._running[name] = self._stack.enter_context(make())
        return self._running[name]

    def s3(self):
        """An S3 server."""
        return self._started("s3", S3Server)

    def google(self):
        """Google Cloud Storage."""
        return self._started("gs", lambda: GoogleStorage(self.s3().endpoint))

    def azurite(self):
        """Azure's."""
        if not AZURITE.exists():
            pytest.skip("Azurite is not here: `make test-clouds` installs it")
        return self._started("az", lambda: Azurite(AZURITE))

    def server(self, scheme):
        """A server's own address."""
        if scheme == "az":
            return self.azurite().server
        return self.google().endpoint if scheme == "gs" else self.s3().endpoint

    def url(self, scheme, endpoint=None):
        """The address of a new store; the endpoint may be a proxy's."""
        endpoint = endpoint or self.server(scheme)
        if scheme == "az":
            azurite = self.azurite()
            return azurite.url(azurite.new_container(), "some/folder", endpoint)
        return f"{scheme}://{self.s3().new_bucket()}/some/folder?endpoint={endpoint}"


@pytest.fixture(scope="session")
def clouds():
    """The servers of the clouds."""
    with contextlib.ExitStack() as stack:
        yield Clouds(stack)
