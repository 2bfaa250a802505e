"""Google Cloud Storage on loopback: its XML interface, as obstore speaks it, in front of an S3 server.

No emulator that is known to us has that interface: they speak the JSON one. S3's is the same in most things, by
Google's own word so that programs for the one can use the other; what differs and is used is made here: tokens instead
of signatures, from a metadata service, ``x-goog-if-generation-match: 0`` instead of ``If-None-Match: *``, generations.
So it shows that obstore's client for Google does what a store needs, and not that Google does.
"""

from __future__ import annotations

import json
import secrets
import urllib.parse

from snaplib.testing.faultyproxy import FaultyProxy

__all__ = ["GoogleStorage"]

_TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - a path
#: The server below wants to see that somebody has signed, and does not look at the signature.
_SIGNED = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
_IF_NEW = "x-goog-if-generation-match"

Answer = tuple[int, list[tuple[str, str]], bytes]


class GoogleStorage(FaultyProxy):
    """A server of its own; a context manager. It passes faults on requests like any `FaultyProxy`.

    Args:
        target: The address of an S3 server, which keeps the objects.

    Attributes:
        token: What requests must show; told by the metadata service.
        tokens_given: How often it was asked for one.
    """

    def __init__(self, target: str) -> None:
        self.token = f"ya29.{secrets.token_urlsafe(24)}"
        self.tokens_given = 0
        super().__init__(target)

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which credentials come from its metadata service."""
        address = self.endpoint.partition("//")[2]
        return {
            "GCE_METADATA_HOST": address,
            "GCE_METADATA_ROOT": address,
            "GCE_METADATA_IP": address,
        }

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        """Answer a request."""
        given = {name.lower(): text for name, text in headers.items()}
        if path.partition("?")[0] == _TOKEN_PATH:
            if given.get("metadata-flavor") != "Google":
                return _error(403, "Forbidden")
            self.tokens_given += 1
            fields = {"access_token": self.token, "expires_in": 3600, "token_type": "Bearer"}
            return 200, [("Content-Type", "application/json")], json.dumps(fields).encode()
        if given.pop("authorization", "") != f"Bearer {self.token}":
            return _error(401, "AuthenticationRequired")
        condition = given.pop(_IF_NEW, None)
        if condition == "0":
            given["if-none-match"] = "*"
        given.pop("host", None)
        given["authorization"] = _SIGNED
        # The client encodes more of a bucket's name than the server below decodes.
        bucket, slash, rest = path[1:].partition("/")
        bucket, question, query = bucket.partition("?")
        path = f"/{urllib.parse.unquote(bucket)}{question}{query}{slash}{rest}"
        status, answered, content = super().ask(method, path, body, given)
        if method in ("PUT", "GET", "HEAD") and status < 300:
            answered.append(("x-goog-generation", "1"))
        return status, answered, content


def _error(status: int, code: str) -> Answer:
    text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return status, [("Content-Type", "application/xml")], text.encode()
