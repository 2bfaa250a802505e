"""The metadata services of three clouds, as far as notices go: on loopback, and in the test's hands.

Each behaves as its cloud documents it: tokens that expire, 404 until there is a notice, answers that wait for a change,
events of other machines, and services that do not answer at all.  Give ``url`` (or ``host``) to the source under test,
or ``environment`` to a process that runs ``snaplib run``.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import http.server
import json
import sys
import threading
import time
import urllib.parse
import uuid
from typing import Any, Self

__all__ = ["FakeAws", "FakeAzure", "FakeGcp", "FakeMetadata"]


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # Who asked may have gone before the answer came: it was saved.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class FakeMetadata:
    """A metadata service on a free port of 127.0.0.1; a context manager.

    Attributes:
        requests: How many questions there were, by ``METHOD /path`` without the query.
        silent: While set, no question is answered: connections are closed.
        clock_offset_s: How much the service's clock is ahead of this machine's.
    """

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}
        self.silent = False
        self.clock_offset_s = 0.0
        self._changed = threading.Condition()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer in two segments would wait for the client's delayed acknowledgement.
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                path = urllib.parse.urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                fake._count(f"{self.command} {path.path}")
                if fake.silent:
                    self.close_connection = True
                    return
                query = dict(urllib.parse.parse_qsl(path.query))
                status, text, headers = fake.answer(
                    self.command, path.path, query, dict(self.headers.items()), body
                )
                data = text.encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = _serve  # noqa: N815 - http.server's names

            def date_time_string(self, timestamp: float | None = None) -> str:
                moment = time.time() if timestamp is None else timestamp
                return email.utils.formatdate(moment + fake.clock_offset_s, usegmt=True)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://{self.host}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to ask this one."""
        return {}

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        body: bytes,
    ) -> tuple[int, str, dict[str, str]]:
        """Return status, text and headers for a question."""
        raise NotImplementedError

    def asked(self, question: str) -> int:
        """Return how often a question was asked, such as ``PUT /latest/api/token``."""
        with self._changed:
            return self.requests.get(question, 0)

    def wait_until_asked(self, question: str, times: int = 1, timeout_s: float = 30.0) -> bool:
        """Wait until a question was asked that often.

        Args:
            question: Such as ``PUT /latest/api/token``.
            times: How often.
            timeout_s: How long to wait.

        Returns:
            Whether it was.
        """
        with self._changed:
            return self._changed.wait_for(
                lambda: self.requests.get(question, 0) >= times, timeout_s
            )

    def _count(self, question: str) -> None:
        with self._changed:
            self.requests[question] = self.requests.get(question, 0) + 1
            self._changed.notify_all()

    def _moment(self, seconds: float) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds + self.clock_offset_s)


class FakeAws(FakeMetadata):
    """The instance metadata service, version 2: no answer without a token that is still good."""

    TOKENS = "PUT /latest/api/token"
    ACTION = "GET /latest/meta-data/spot/instance-action"

    def __init__(self) -> None:
        super().__init__()
        self._tokens: set[str] = set()
        self._action: dict[str, str] | None = None
        self._rebalance: dict[str, str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to ask this one."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}

    def announce(self, window_s: float = 120.0, action: str = "terminate") -> None:
        """Give the interruption notice."""
        self._action = {"action": action, "time": f"{self._moment(window_s):%Y-%m-%dT%H:%M:%SZ}"}

    def cancel(self) -> None:
        """Take it back."""
        self._action = None

    def recommend_rebalance(self) -> None:
        """Say that an interruption is likely."""
        self._rebalance = {"noticeTime": f"{self._moment(0):%Y-%m-%dT%H:%M:%SZ}"}

    def expire_tokens(self) -> None:
        """Let all tokens that were given be good no more."""
        self._tokens.clear()

    def answer(
        self,
        method: str,
        path: str,
        query: dict[str, str],  # noqa: ARG002 - the base's
        headers: dict[str, str],
        body: bytes,  # noqa: ARG002 - the base's
    ) -> tuple[int, str, dict[str, str]]:
        """Return status, text and headers for a question."""
        if path == "/latest/api/token":
            if method != "PUT" or "X-Aws-Ec2-Metadata-Token-Ttl-Seconds" not in _titled(headers):
                return 400, "", {}
            token = uuid.uuid4().hex
            self._tokens.add(token)
            return 200, token, {}
        if _titled(headers).get("X-Aws-Ec2-Metadata-Token") not in self._tokens:
            return 401, "", {}
        told = {
            "/latest/meta-data/spot/instance-action": self._action,
            "/latest/meta-data/events/recommendations/rebalance": self._rebalance,
        }.get(path)
        return (404, "", {}) if told is None else (200, json.dumps(told), {})


class FakeGcp(FakeMetadata):
    """The metadata server: no answer without ``Metadata-Flavor: Google``; waits for changes if asked to."""

    PREEMPTED = "GET /computeMetadata/v1/instance/preempted"

    def __init__(self) -> None:
        super().__init__()
        self._values = {"preempted": "FALSE", "maintenance-event": "NONE"}
        self._etags = dict.fromkeys(self._values, 1)

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to ask this one."""
        return {"GCE_METADATA_HOST": self.host}

    def announce(self) -> None:
        """Preempt the machine."""
        self._set("preempted", "TRUE")

    def cancel(self) -> None:
        """Take it back, which the cloud never does."""
        self._set("preempted", "FALSE")

    def maintain(self, event: str = "TERMINATE_ON_HOST_MAINTENANCE") -> None:
        """Announce host maintenance."""
        self._set("maintenance-event", event)

    def _set(self, name: str, value: str) -> None:
        with self._changed:
            self._values[name] = value
            self._etags[name] += 1
            self._changed.notify_all()

    def answer(
        self,
        method: str,  # noqa: ARG002 - the base's
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        body: bytes,  # noqa: ARG002 - the base's
    ) -> tuple[int, str, dict[str, str]]:
        """Return status, text and headers for a question."""
        if _titled(headers).get("Metadata-Flavor") != "Google":
            return 403, "", {}
        name = path.rpartition("/")[2]
        if name not in self._values:
            return 404, "", {}
        with self._changed:
            if query.get("wait_for_change") == "true":
                known = query.get("last_etag", str(self._etags[name]))
                timeout_s = float(query.get("timeout_sec", "3600"))
                self._changed.wait_for(lambda: str(self._etags[name]) != known, timeout_s)
            return 200, self._values[name], {"ETag": str(self._etags[name])}


class FakeAzure(FakeMetadata):
    """Scheduled Events of a machine and of another one in the same set.

    Args:
        name: This machine's name.
    """

    EVENTS = "GET /metadata/scheduledevents"
    START = "POST /metadata/scheduledevents"

    def __init__(self, name: str = "worker_7") -> None:
        super().__init__()
        self.name = name
        #: The ids of the events that were acknowledged.
        self.started: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._incarnation = 1

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have in its environment to ask this one."""
        return {"SNAPLIB_AZURE_METADATA_URL": self.url}

    def announce(
        self, window_s: float = 30.0, kind: str = "Preempt", name: str | None = None
    ) -> str:
        """Schedule an event.

        Args:
            window_s: Seconds until it starts.
            kind: Azure's name for it.
            name: Whom it is for; this machine by default.

        Returns:
            Its id.
        """
        event = {
            "EventId": str(uuid.uuid4()).upper(),
            "EventStatus": "Scheduled",
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": [name or self.name],
            "NotBefore": email.utils.format_datetime(self._moment(window_s), usegmt=True),
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        self._events = [*self._events, event]
        self._incarnation += 1
        return str(event["EventId"])

    def cancel(self) -> None:
        """Call all events off."""
        self._events = []
        self._incarnation += 1

    def answer(
        self,
        method: str,
        path: str,
        query: dict[str, str],
        headers: dict[str, str],
        body: bytes,
    ) -> tuple[int, str, dict[str, str]]:
        """Return status, text and headers for a question."""
        if _titled(headers).get("Metadata") != "true" or "api-version" not in query:
            return 400, "", {}
        if path == "/metadata/instance/compute/name":
            return 200, self.name, {}
        if path != "/metadata/scheduledevents":
            return 404, "", {}
        if method == "POST":
            self.started += [one["EventId"] for one in json.loads(body)["StartRequests"]]
            return 200, "", {}
        document = {"DocumentIncarnation": self._incarnation, "Events": self._events}
        return 200, json.dumps(document), {}


def _titled(headers: dict[str, str]) -> dict[str, str]:
    return {name.title(): value for name, value in headers.items()}
