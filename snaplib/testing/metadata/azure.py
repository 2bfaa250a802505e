"""The Scheduled Events of Azure."""

from __future__ import annotations

import email.utils
import json
import uuid
from typing import Any

from snaplib.testing.metadata.service import Answer, FakeMetadata, Question

__all__ = ["FakeAzure"]


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

    def answer(self, question: Question) -> Answer:
        """Return status, text and headers for a question."""
        if question.headers.get("Metadata") != "true" or "api-version" not in question.query:
            return 400, "", {}
        if question.path == "/metadata/instance/compute/name":
            return 200, self.name, {}
        if question.path != "/metadata/scheduledevents":
            return 404, "", {}
        if question.method == "POST":
            self.started += [one["EventId"] for one in json.loads(question.body)["StartRequests"]]
            return 200, "", {}
        document = {"DocumentIncarnation": self._incarnation, "Events": self._events}
        return 200, json.dumps(document), {}
