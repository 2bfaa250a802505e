"""Google Cloud: ``instance/preempted`` turns TRUE 30 seconds before a Spot machine ends.

``instance/maintenance-event`` tells of host maintenance: TERMINATE_ON_HOST_MAINTENANCE ends the machine 60 seconds
later, MIGRATE_ON_HOST_MAINTENANCE does not.  A question with ``wait_for_change`` is answered when the value changes, so
that little is asked and the notice is heard at once (Compute Engine: "Preempted VM instances", "Query metadata").
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from snaplib.errors import NoticeSourceFailed
from snaplib.reclaim.metadata import MetadataService
from snaplib.reclaim.notice import Notice
from snaplib.reclaim.source import PolledSource

__all__ = ["Gcp"]

_HOST = "169.254.169.254"
_HTTP_OK = 200
_MAINTENANCE_S = 60.0


class Gcp(PolledSource):
    """The metadata server.

    Args:
        host: Its host and port; ``$GCE_METADATA_HOST`` by default, as Google's own tools have it.
        interval_s: Seconds between two questions.
        clock: Tells the time in seconds, never backwards.
    """

    name = "gcp"
    window_s = 30.0

    def __init__(
        self,
        host: str | None = None,
        *,
        interval_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(interval_s=interval_s, clock=clock)
        address = host or os.environ.get("GCE_METADATA_HOST") or _HOST
        self._service = MetadataService(
            f"http://{address}/computeMetadata/v1/instance", {"Metadata-Flavor": "Google"}
        )
        self._etag = ""

    def ask(self) -> Iterable[Notice]:
        """Return what stands; after the first time the answer waits for a change, for an interval at most."""
        event = self._get("/maintenance-event", wait=False)
        if event == "TERMINATE_ON_HOST_MAINTENANCE":
            yield Notice(self.name, _MAINTENANCE_S, detail=event)
        if self._get("/preempted", wait=True) == "TRUE":
            yield Notice(self.name, detail="preempted")

    def _get(self, path: str, *, wait: bool) -> str:
        seconds = max(1, round(self.interval_s))
        # Without the ETag of the last answer a change between two questions would be waited for in vain.
        query = ""
        if wait and self._etag:
            query = f"?wait_for_change=true&timeout_sec={seconds}&last_etag={self._etag}"
        answer = self._service.request("GET", path + query, read_s=seconds + 2.0)
        if answer.status != _HTTP_OK:
            raise NoticeSourceFailed(f"{self._service.url}{path} answers {answer.status}")
        if wait:
            self._etag = answer.etag
        return answer.body.strip().upper()
