"""AWS: spot interruption notices, two minutes ahead, and rebalance recommendations, which may come earlier.

``spot/instance-action`` answers 404 until there is a notice; the time in it is when the instance is stopped or
terminated.  AWS asks to look every five seconds, and calls the notice best effort.  IMDSv2 wants a token with every
question (Amazon EC2 User Guide: "Spot Instance interruption notices", "EC2 instance rebalance recommendations").
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from snaplib.errors import NoticeSourceFailed
from snaplib.reclaim.metadata import Answer, MetadataService, seconds_until
from snaplib.reclaim.notice import Notice, NoticeKind
from snaplib.reclaim.source import PolledSource

__all__ = ["Aws"]

_URL = "http://169.254.169.254"
_TOKEN_TTL_S = 21_600
_HTTP_OK = 200
_HTTP_UNAUTHORIZED = 401
_HTTP_NOT_FOUND = 404
#: Whatever the clocks say: a notice that is there leaves some time.
_LEAST_S = 5.0


class Aws(PolledSource):
    """The instance metadata service, version 2.

    Args:
        url: Its address; ``$AWS_EC2_METADATA_SERVICE_ENDPOINT`` by default, as AWS's own tools have it.
        interval_s: Seconds between two questions.
        clock: Tells the time in seconds, never backwards.
    """

    name = "aws"
    window_s = 120.0

    def __init__(
        self,
        url: str | None = None,
        *,
        interval_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(interval_s=interval_s, clock=clock)
        address = url or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _URL
        self._service = MetadataService(address, {})
        self._token = ""

    def ask(self) -> Iterable[Notice]:
        """Return the interruption notice and the rebalance recommendation that stand."""
        action = self._get("/latest/meta-data/spot/instance-action")
        if action is not None:
            told = action.json()
            what = told.get("action", "terminate") if isinstance(told, dict) else "terminate"
            moment = str(told.get("time", "")) if isinstance(told, dict) else ""
            left_s = seconds_until(moment, action.now_s, _LEAST_S, self.window_s)
            yield Notice(self.name, left_s, detail=f"{what} at {moment}")
        if self._get("/latest/meta-data/events/recommendations/rebalance") is not None:
            yield Notice(self.name, kind=NoticeKind.HINT, detail="rebalance recommendation")

    def _get(self, path: str) -> Answer | None:
        """Return what is there; None for 404."""
        answer = self._service.request("GET", path, headers=self._auth())
        if answer.status == _HTTP_UNAUTHORIZED:
            # The token has expired, or is one of before a stop and start.
            self._token = ""
            answer = self._service.request("GET", path, headers=self._auth())
        if answer.status == _HTTP_NOT_FOUND:
            return None
        if answer.status != _HTTP_OK:
            raise NoticeSourceFailed(f"{self._service.url}{path} answers {answer.status}")
        return answer

    def _auth(self) -> dict[str, str]:
        if not self._token:
            answer = self._service.request(
                "PUT",
                "/latest/api/token",
                headers={"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_TTL_S)},
            )
            if answer.status != _HTTP_OK:
                raise NoticeSourceFailed(f"{self._service.url} gives no token: {answer.status}")
            self._token = answer.body
        return {"X-aws-ec2-metadata-token": self._token}
