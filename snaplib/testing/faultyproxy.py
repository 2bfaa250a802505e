"""A proxy before a server that does to requests what networks and clouds do."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FaultyProxy", "Request"]

_BLOCK_BYTES = 64 << 10


@attrs.frozen
class Request:
    """A request that passes the proxy.

    Attributes:
        method: Such as ``PUT``.
        path: With its query.
        size_bytes: The length of its body.
        number: How many came before it.
    """

    method: str
    path: str
    size_bytes: int
    number: int

    @property
    def lists(self) -> bool:
        """Whether it asks for a list of objects."""
        return self.method == "GET" and "list-type=2" in self.path


class _QuietHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: Any) -> None:
        pass


class FaultyProxy:
    """Passes HTTP requests on, except for what it is told to do otherwise; a context manager.

    Args:
        target: The server's address.

    Attributes:
        endpoint: Its own address.
        fault: Told of each request, says what becomes of it: nothing or ``pass``; ``503`` or any status; ``hang``
            answers never; ``cut`` closes the connection when half of the body has come; ``lose`` does what is asked
            and closes the connection instead of answering; ``slow`` passes 256 KiB a second; ``ignore-conditions``
            takes ``If-None-Match`` away.
        hidden: Objects whose names match are left out of lists.
        requests: What has come so far.
    """

    def __init__(self, target: str) -> None:
        self._target = target.partition("//")[2]
        self.fault: Callable[[Request], str | None] = lambda _request: None
        self.hidden: re.Pattern[str] | None = None
        self.requests: list[Request] = []
        self._ended = threading.Event()

        def handle(handler: http.server.BaseHTTPRequestHandler) -> None:
            self._handle(handler)

        # http.server looks for a method named after each HTTP method.
        methods = {f"do_{name}": handle for name in ("GET", "PUT", "POST", "DELETE", "HEAD")}
        handler = type("Handler", (_QuietHandler,), methods)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the proxy, and whatever hangs in it."""
        self._ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handle(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        size = int(handler.headers.get("Content-Length") or 0)
        request = Request(handler.command, handler.path, size, len(self.requests))
        self.requests.append(request)
        fault = self.fault(request) or "pass"
        with contextlib.suppress(OSError, http.client.HTTPException):
            self._act(handler, request, fault)
            return
        handler.close_connection = True

    def _act(
        self, handler: http.server.BaseHTTPRequestHandler, request: Request, fault: str
    ) -> None:
        if fault == "cut":
            handler.rfile.read(request.size_bytes // 2)
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        body = b"".join(_body(handler, request.size_bytes, slow=fault == "slow"))
        if fault == "hang":
            self._ended.wait()
            handler.close_connection = True
            return
        if fault.isdigit():
            handler.send_response(int(fault))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        headers = dict(handler.headers.items())
        if fault == "ignore-conditions":
            headers = {
                name: text for name, text in headers.items() if name.lower() != "if-none-match"
            }
        status, answered, content = self.ask(handler.command, handler.path, body, headers)
        if fault == "lose":
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if request.lists and self.hidden is not None:
            content = self._without_hidden(content)
        handler.send_response(status)
        for name, text in answered:
            if name.lower() not in (
                "transfer-encoding",
                "connection",
                "content-length",
                "date",
                "server",
            ):
                handler.send_header(name, text)
        is_head = handler.command == "HEAD"
        told = next((text for name, text in answered if name.lower() == "content-length"), "0")
        handler.send_header("Content-Length", told if is_head else str(len(content)))
        handler.end_headers()
        if not is_head:
            handler.wfile.write(content)

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Pass a request on; return the answer's status, headers and body.

        Args:
            method: Such as ``PUT``.
            path: With its query.
            body: What is sent.
            headers: Its headers.
        """
        connection = http.client.HTTPConnection(self._target, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def _without_hidden(self, content: bytes) -> bytes:
        assert self.hidden is not None
        hidden = self.hidden

        def kept(found: re.Match[str]) -> str:
            return "" if hidden.search(found[1]) else found[0]

        text = re.sub(
            r"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", kept, content.decode(), flags=re.DOTALL
        )
        return text.encode()


def _body(handler: http.server.BaseHTTPRequestHandler, size: int, *, slow: bool) -> Iterator[bytes]:
    while size > 0:
        block = handler.rfile.read(min(size, _BLOCK_BYTES))
        if not block:
            return
        size -= len(block)
        yield block
        if slow:
            time.sleep(len(block) / (256 << 10))
