"""Azure: Scheduled Events, at least 30 seconds ahead of a ``Preempt``.

The document lists events of all machines of a scale set or availability set, which are matched by this one's name.
Some are days ahead: until two minutes before, they are hints.  An event that is acknowledged starts at once, before its
``NotBefore``; one that was called off is not listed any more.  The first question turns the service on, which may take
two minutes (Azure: "Scheduled Events for Linux VMs").
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from snaplib.errors import NoticeSourceFailed
from snaplib.reclaim.metadata import MetadataService, seconds_until
from snaplib.reclaim.notice import Notice, NoticeKind
from snaplib.reclaim.source import PolledSource

__all__ = ["Azure"]

_URL = "http://169.254.169.254"
_EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
_NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
_HTTP_OK = 200
#: What ends every process of the machine; a Freeze only lets it stand still for some seconds.
_ENDING = ("Preempt", "Terminate", "Reboot", "Redeploy")
_LEAST_S = 5.0
#: More than this ahead there is no hurry yet.
_LEAD_S = 120.0


class Azure(PolledSource):
    """The Scheduled Events of this machine.

    Args:
        url: The metadata service's address; ``$SNAPLIB_AZURE_METADATA_URL`` by default.
        interval_s: Seconds between two questions.
        clock: Tells the time in seconds, never backwards.
    """

    name = "azure"
    window_s = 30.0

    def __init__(
        self,
        url: str | None = None,
        *,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(interval_s=interval_s, clock=clock)
        address = url or os.environ.get("SNAPLIB_AZURE_METADATA_URL") or _URL
        self._service = MetadataService(address, {"Metadata": "true"})
        self._machine = ""
        #: The ids of the events that stand, for the acknowledgement.
        self._standing: tuple[str, ...] = ()

    def ask(self) -> Iterable[Notice]:
        """Return the events that end this machine."""
        if not self._machine:
            self._machine = self._text(_NAME)
        answer = self._service.request("GET", _EVENTS, read_s=5.0)
        if answer.status != _HTTP_OK:
            raise NoticeSourceFailed(f"{self._service.url}{_EVENTS} answers {answer.status}")
        events = [one for one in _events(answer.json()) if self._is_ours(one)]
        self._standing = tuple(str(one.get("EventId", "")) for one in events)
        for one in events:
            moment = str(one.get("NotBefore") or "")
            left_s = seconds_until(moment, answer.now_s, _LEAST_S, math.inf)
            # A started event has no NotBefore any more.
            if one.get("EventStatus") == "Started":
                left_s = _LEAST_S
            kind = NoticeKind.RECLAIM
            if left_s is not None and left_s > _LEAD_S:
                kind = NoticeKind.HINT
            detail = f"{one['EventType']} at {moment or 'once'}"
            yield Notice(self.name, left_s, kind, detail)

    def _is_ours(self, event: dict[str, Any]) -> bool:
        resources = event.get("Resources") or ()
        return event.get("EventType") in _ENDING and any(
            str(one).lower() == self._machine.lower() for one in resources
        )

    def _text(self, path: str) -> str:
        answer = self._service.request("GET", path)
        if answer.status != _HTTP_OK:
            raise NoticeSourceFailed(f"{self._service.url}{path} answers {answer.status}")
        return answer.body.strip()

    def acknowledge(self) -> None:
        """Say that the machine may go now.

        Raises:
            NoticeSourceFailed: The service does not answer.
        """
        if not self._standing:
            return
        starts = [{"EventId": one} for one in self._standing]
        self._service.request("POST", _EVENTS, body={"StartRequests": starts})


def _events(document: Any) -> list[dict[str, Any]]:
    events = document.get("Events") if isinstance(document, dict) else None
    if not isinstance(events, list):
        raise NoticeSourceFailed("the document of scheduled events has no list of them")
    return [one for one in events if isinstance(one, dict)]
