"""What the three have in common: a server on loopback that counts its questions."""

from __future__ import annotations

import datetime as dt
import email.utils
import http.server
import sys
import threading
import time
import urllib.parse
from typing import Any, Self

import attrs

__all__ = ["Answer", "FakeMetadata", "Question"]

#: Status, text and headers.
Answer = tuple[int, str, dict[str, str]]


@attrs.frozen
class Question:
    """A request.

    Attributes:
        method: Such as ``GET``.
        path: Without the query.
        query: Its fields.
        headers: By their names as they are usually written.
        body: What was sent.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


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
                question = Question(
                    method=self.command,
                    path=path.path,
                    query=dict(urllib.parse.parse_qsl(path.query)),
                    headers={name.title(): value for name, value in self.headers.items()},
                    body=body,
                )
                status, text, headers = fake.answer(question)
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

    def answer(self, question: Question) -> Answer:
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
