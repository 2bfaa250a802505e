"""The metadata server of Google Cloud."""

from __future__ import annotations

from snaplib.testing.metadata.service import Answer, FakeMetadata, Question

__all__ = ["FakeGcp"]


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

    def answer(self, question: Question) -> Answer:
        """Return status, text and headers for a question."""
        if question.headers.get("Metadata-Flavor") != "Google":
            return 403, "", {}
        name = question.path.rpartition("/")[2]
        if name not in self._values:
            return 404, "", {}
        with self._changed:
            if question.query.get("wait_for_change") == "true":
                known = question.query.get("last_etag", str(self._etags[name]))
                timeout_s = float(question.query.get("timeout_sec", "3600"))
                self._changed.wait_for(lambda: str(self._etags[name]) != known, timeout_s)
            return 200, self._values[name], {"ETag": str(self._etags[name])}
