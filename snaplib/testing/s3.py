"""An S3 server on loopback."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import sys

from snaplib.testing.emulator import Emulator
from snaplib.testing.faultyproxy import FaultyProxy, Request

__all__ = ["FaultyProxy", "Request", "S3Server"]


class S3Server(Emulator):
    """moto's S3 server in a process of its own; a context manager."""

    def __init__(self) -> None:
        super().__init__(
            lambda port: [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            start_s=60.0,
            failure="moto's server does not start; is moto[server] installed?",
        )

    @property
    def endpoint(self) -> str:
        """Its address, for ``AWS_ENDPOINT_URL``."""
        return self.address

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """Return the environment variables that lead to this server.

        Args:
            endpoint: Another address for it, such as a proxy's.
        """
        return {
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "not-much-of-a-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
        }

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        connection = http.client.HTTPConnection(self.endpoint.partition("//")[2], timeout=20)
        with contextlib.closing(connection):
            connection.request("PUT", f"/{name}")
            answer = connection.getresponse()
            answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the bucket could not be made: {answer.status}")
        return name
