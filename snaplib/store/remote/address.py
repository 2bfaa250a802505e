"""Which bucket an address means, and where the credentials for it are.

Credentials never are part of an address: addresses are shown, logged and seen in process lists.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
import urllib.parse
from typing import TYPE_CHECKING, Any

import attrs

from snaplib.errors import UsageError
from snaplib.store.rates import bytes_per_s
from snaplib.store.remote.awsprofile import aws_profile
from snaplib.store.remote.backend import RemoteBackend

if TYPE_CHECKING:
    from obstore.store import MemoryStore, ObjectStore

__all__ = ["SCHEMES", "RemoteAddress", "open_remote"]

SCHEMES = ("s3", "gs", "az", "memory")

#: The options an address may carry, by scheme; all may limit the bandwidth.
_OPTIONS = {
    "s3": {"endpoint", "region", "bandwidth"},
    "gs": {"endpoint", "bandwidth"},
    "az": {"account", "endpoint", "bandwidth"},
    "memory": {"bandwidth"},
}

#: Short retries inside of one request; whoever made it tries again as long as there is time.
_QUICK_RETRIES = 2
_QUICK_RETRIES_S = 8.0
#: A part of a stream cannot be sent again by anybody else.
_STREAM_RETRIES = 20
_STREAM_RETRIES_S = 120.0
_STREAM_REQUEST_S = 60.0
_REQUEST_S = 300.0
_CONNECT_S = 5.0


@attrs.frozen
class RemoteAddress:
    """An address taken apart.

    Attributes:
        scheme: One of `SCHEMES`.
        bucket: The bucket or container; for ``memory`` any name.
        prefix: The folder in it; may be empty.
        options: What stands behind the question mark.
        bandwidth_bytes_per_s: The most to send each second; None without a limit.
    """

    scheme: str
    bucket: str
    prefix: str
    options: dict[str, str]
    bandwidth_bytes_per_s: float | None

    @classmethod
    def parse(cls, url: str) -> RemoteAddress:
        """Take an address apart.

        Raises:
            UsageError: It means nothing, or holds a secret.
        """
        parts = urllib.parse.urlsplit(url)
        if "@" in parts.netloc:
            raise UsageError(
                f"the address {parts.scheme}://...@{parts.netloc.rpartition('@')[2]} holds credentials",
                hint="give them in the environment or the files that the cloud's own tools use",
            )
        bucket, prefix = parts.netloc, urllib.parse.unquote(parts.path).strip("/")
        if not bucket and parts.scheme != "memory":
            raise UsageError(f"{url} names no bucket", hint=f"write {parts.scheme}://bucket/folder")
        if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
            raise UsageError(f"{url} has a folder that is empty, '.' or '..'")
        options: dict[str, str] = {}
        for name, value in urllib.parse.parse_qsl(parts.query, keep_blank_values=True):
            if name not in _OPTIONS[parts.scheme]:
                # Not its value: it may be a secret in the wrong place.
                known = ", ".join(sorted(_OPTIONS[parts.scheme]))
                raise UsageError(
                    f"{parts.scheme}:// addresses have no option {name!r}",
                    hint=f"known are {known}",
                )
            options[name] = value
        limit = options.pop("bandwidth", None)
        bandwidth = None if limit is None else bytes_per_s(limit, "a bandwidth")
        return cls(parts.scheme, bucket, prefix, options, bandwidth)


def open_remote(url: str) -> RemoteBackend:
    """Return the backend of an address; nothing is sent yet.

    Args:
        url: Its scheme is one of `SCHEMES`.

    Raises:
        UsageError: The address means nothing, or the cloud's settings in the environment do not fit.
    """
    address = RemoteAddress.parse(url)
    return RemoteBackend(
        url.partition("?")[0].rstrip("/") if address.scheme != "memory" else url,
        _object_store(address, _QUICK_RETRIES, _QUICK_RETRIES_S, _REQUEST_S),
        address=url,
        streaming=_object_store(address, _STREAM_RETRIES, _STREAM_RETRIES_S, _STREAM_REQUEST_S),
        bandwidth_bytes_per_s=address.bandwidth_bytes_per_s,
    )


def _object_store(
    address: RemoteAddress, retries: int, retries_s: float, request_s: float
) -> ObjectStore:
    """Make obstore's store of an address; it takes what is not given from the environment."""
    # Late: it is large, and local stores do without.
    from obstore import store as stores  # noqa: PLC0415
    from obstore.exceptions import BaseError  # noqa: PLC0415

    endpoint = address.options.get("endpoint")
    config: dict[str, Any] = {
        "client_options": {
            "connect_timeout": dt.timedelta(seconds=_CONNECT_S),
            "timeout": dt.timedelta(seconds=request_s),
            "user_agent": "snaplib",
        },
        "retry_config": {
            "max_retries": retries,
            "retry_timeout": dt.timedelta(seconds=retries_s),
            "backoff": {"max_backoff": dt.timedelta(seconds=2)},
        },
    }
    prefix = address.prefix or None
    try:
        if address.scheme == "memory":
            return _memory(f"{address.bucket}/{address.prefix}")
        if address.scheme == "gs":
            if endpoint:
                config["base_url"] = endpoint.rstrip("/")
                config["client_options"]["allow_http"] = endpoint.startswith("http://")
            return stores.GCSStore(address.bucket, prefix=prefix, **config)
        if address.scheme == "az":
            if endpoint:
                config["endpoint"] = endpoint
                config["client_options"]["allow_http"] = endpoint.startswith("http://")
            if "account" in address.options:
                config["account_name"] = address.options["account"]
            return stores.AzureStore(address.bucket, prefix=prefix, **config)
        config.update(aws_profile(os.environ))
        if "region" in address.options:
            config["region"] = address.options["region"]
        endpoint = endpoint or next(
            (
                os.environ[name]
                for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
                if os.environ.get(name)
            ),
            config.get("endpoint"),
        )
        if endpoint:
            config["endpoint"] = endpoint.rstrip("/")
            # Whoever writes http:// means it; with an https:// endpoint it stays forbidden.
            config["client_options"]["allow_http"] = endpoint.startswith("http://")
        if not any(name in os.environ for name in ("AWS_REGION", "AWS_DEFAULT_REGION")):
            config.setdefault("region", "us-east-1")
        return stores.S3Store(address.bucket, prefix=prefix, **config)
    except (BaseError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{address.scheme}://{address.bucket} cannot be used: {reason}",
            hint="set what the cloud's own tools need in the environment",
        ) from error


@functools.cache
def _memory(_name: str) -> MemoryStore:
    """Return this process's memory of a name, the same each time."""
    from obstore.store import MemoryStore  # noqa: PLC0415 - late, as above

    return MemoryStore()
