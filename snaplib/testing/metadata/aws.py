"""The instance metadata service of AWS."""

from __future__ import annotations

import json
import uuid

from snaplib.testing.metadata.service import Answer, FakeMetadata, Question

__all__ = ["FakeAws"]


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

    def answer(self, question: Question) -> Answer:
        """Return status, text and headers for a question."""
        if question.path == "/latest/api/token":
            if (
                question.method != "PUT"
                or "X-Aws-Ec2-Metadata-Token-Ttl-Seconds" not in question.headers
            ):
                return 400, "", {}
            token = uuid.uuid4().hex
            self._tokens.add(token)
            return 200, token, {}
        if question.headers.get("X-Aws-Ec2-Metadata-Token") not in self._tokens:
            return 401, "", {}
        told = {
            "/latest/meta-data/spot/instance-action": self._action,
            "/latest/meta-data/events/recommendations/rebalance": self._rebalance,
        }.get(question.path)
        return (404, "", {}) if told is None else (200, json.dumps(told), {})
