"""Asking a cloud's metadata service: a plain HTTP server on a link-local address, one hop away."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import time
from collections.abc import Mapping
from typing import Any

import attrs

from snaplib.errors import NoticeSourceFailed

__all__ = ["Answer", "MetadataService", "seconds_until"]

#: It is on this machine's own link: what takes longer is not there.
_CONNECT_S = 1.0
_READ_S = 2.0


@attrs.frozen
class Answer:
    """What the service said.

    Attributes:
        status: The HTTP status.
        body: The text.
        now_s: Its time of day in seconds since the epoch; ours where it tells none.
        etag: What names this state of the resource, if it says.
    """

    status: int
    body: str
    now_s: float
    etag: str = ""

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            NoticeSourceFailed: It is none.
        """
        try:
            return json.loads(self.body)
        except ValueError:
            raise NoticeSourceFailed(f"an answer that is no JSON: {self.body[:80]!r}") from None


class MetadataService:
    """A connection that is kept open: no proxy, no redirects, no retries but the next poll.

    Args:
        url: The service's base address.
        headers: Go with every request.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self.url = url.rstrip("/")
        self._headers = dict(headers)
        self._pool: Any = None

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        read_s: float = _READ_S,
    ) -> Answer:
        """Ask.

        Args:
            method: GET, PUT or POST.
            path: Behind the base address.
            headers: Additional ones.
            body: Sent as JSON.
            read_s: How long to wait for the answer.

        Raises:
            NoticeSourceFailed: There was no answer.
        """
        # Here and not above: it takes longer to import than starting a task may.
        import urllib3  # noqa: PLC0415

        if self._pool is None:
            # A PoolManager takes no notice of http_proxy: the address means this machine.
            self._pool = urllib3.PoolManager(num_pools=1, maxsize=2, retries=False)
        try:
            response = self._pool.request(
                method,
                self.url + path,
                headers={**self._headers, **(headers or {})},
                body=None if body is None else json.dumps(body),
                timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise NoticeSourceFailed(f"{self.url} does not answer: {error}") from error
        text = response.data.decode("utf-8", "replace")
        return Answer(
            response.status,
            text,
            _time_of(response.headers.get("Date")),
            response.headers.get("ETag", ""),
        )


def _time_of(date: str | None) -> float:
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return time.time()


def seconds_until(moment: str, now_s: float, least_s: float, most_s: float) -> float | None:
    """Return the seconds until a moment that a service has named.

    Args:
        moment: ISO 8601 or the format of HTTP dates; in UTC where it says no zone.
        now_s: The service's own time, in seconds since the epoch: this machine's clock may be wrong.
        least_s: We still run: this much is left whatever the service says.
        most_s: More is not believed.

    Returns:
        The seconds, or None if the moment cannot be read.
    """
    try:
        when = dt.datetime.fromisoformat(moment)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(moment)
        except ValueError:
            return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=dt.UTC)
    return min(max(when.timestamp() - now_s, least_s), most_s)
