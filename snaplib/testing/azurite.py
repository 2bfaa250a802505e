"""Azure Blob Storage on loopback: Azurite, Microsoft's own emulator of it."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hmac
import http.client
import secrets
import shutil
import tempfile
from typing import TYPE_CHECKING

from snaplib.testing.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Azurite"]

_ACCOUNT = "devstoreaccount1"
_VERSION = "2023-11-03"


class Azurite(Emulator):
    """Azurite in a process of its own, its data in memory; a context manager.

    Args:
        folder: Where ``tests/clouds/prepare`` has put it.
    """

    def __init__(self, folder: Path) -> None:
        self._key = base64.b64encode(secrets.token_bytes(64)).decode()
        self._data = tempfile.mkdtemp(prefix="azurite-")
        super().__init__(
            lambda port: [
                folder / "node",
                folder / "node_modules/azurite/dist/src/blob/main.js",
                "--blobHost=127.0.0.1",
                f"--blobPort={port}",
                "--inMemoryPersistence",
                "--silent",
                "--disableTelemetry",
            ],
            start_s=100.0,
            failure="Azurite does not start",
            cwd=self._data,
            environment={"AZURITE_ACCOUNTS": f"{_ACCOUNT}:{self._key}", "PATH": "/usr/bin:/bin"},
        )

    def close(self) -> None:
        """End the server."""
        super().close()
        shutil.rmtree(self._data, ignore_errors=True)

    @property
    def server(self) -> str:
        """Its address."""
        return self.address

    def url(self, container: str, folder: str, server: str | None = None) -> str:
        """Return the address of a store.

        Args:
            container: Its container.
            folder: The folder in it.
            server: Another address for the server, such as a proxy's.
        """
        endpoint = f"{server or self.server}/{_ACCOUNT}"
        return f"az://{container}/{folder}?account={_ACCOUNT}&endpoint={endpoint}"

    def environment(self) -> dict[str, str]:
        """Return the environment variables with the credentials."""
        return {"AZURE_STORAGE_ACCOUNT_KEY": self._key}

    def new_container(self) -> str:
        """Make a container and return its name."""
        name = f"container-{secrets.token_hex(6)}"
        date = email.utils.formatdate(usegmt=True)
        # The signature of Microsoft's "Authorize with Shared Key": method, eleven headers that are empty here, those
        # of Azure's own, the path and the query.
        text = (
            "PUT\n\n\n\n\n\n\n\n\n\n\n\n"
            f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
            f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
        )
        key = base64.b64decode(self._key)
        signed = base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()
        connection = http.client.HTTPConnection(self.server.partition("//")[2], timeout=20)
        with contextlib.closing(connection):
            headers = {
                "x-ms-date": date,
                "x-ms-version": _VERSION,
                "Authorization": f"SharedKey {_ACCOUNT}:{signed}",
                "Content-Length": "0",
            }
            connection.request("PUT", f"/{_ACCOUNT}/{name}?restype=container", headers=headers)
            answer = connection.getresponse()
            content = answer.read()
        if answer.status != 201:
            raise RuntimeError(f"the container could not be made: {answer.status} {content!r}")
        return name
