"""Requests to an object store: each bounded in time, repeated while that helps, and told in words.

obstore is asynchronous here, in one thread for the whole process, because only so a request that hangs can be given
up.  Inside of a request obstore repeats what fails at once; around it this module does, for as long as there is time:
until the limit if there is one.  Before the first answer ever it does not: an address that is wrong is told at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import random
import re
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from snaplib.errors import StoreDenied, StoreError, StoreFull, StoreUnreachable
from snaplib.store.grace import Grace
from snaplib.store.throughput import Meter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["LOOK_S", "Limiter", "Link", "event_loop"]

T = TypeVar("T")

#: How long requests are repeated where nobody has set a deadline.
_PATIENCE_S = 60.0
_GRACE_S = 2.0
#: How often who waits looks whether the limit has moved.
LOOK_S = 0.05
#: How long one attempt may take: this, and what its bytes take at a quarter of the speed.
_ATTEMPT_S = 20.0
_SLOWEST_BYTES_PER_S = 500_000.0
#: How long the first answer may take.
_FIRST_S = 15.0
_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]+)</Code>")
_NO_BUCKET_CODES = ("NoSuchBucket", "ContainerNotFound")
_NO_BUCKET = "The specified bucket does not exist"
_FULL_CODES = ("XMinioStorageFull", "QuotaExceeded", "InsufficientStorage")
_FULL_STATUS = "507"


@functools.cache
def event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop in which all requests of this process run."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="snaplib-store", daemon=True).start()
    return loop


class Limiter:
    """Lets bytes pass at a rate.

    Args:
        bytes_per_s: The rate; None lets all pass at once.
    """

    def __init__(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    async def take(self, size_bytes: int) -> None:
        """Wait until so many bytes may be sent; only for the loop's thread."""
        if self._bytes_per_s is None:
            return
        now = time.monotonic()
        begin = max(now, self._free_at)
        self._free_at = begin + size_bytes / self._bytes_per_s
        await asyncio.sleep(begin - now)


class Link:
    """The way to one store.

    Args:
        url: The store's address, for messages.
        meter: What measures.
        bandwidth_bytes_per_s: The most to send each second; None without a limit.
        patience_s: How long to repeat a request where there is no deadline.
    """

    def __init__(
        self,
        url: str,
        meter: Meter,
        bandwidth_bytes_per_s: float | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.url = url
        self.meter = meter
        self.limiter = Limiter(bandwidth_bytes_per_s)
        self.limit: Callable[[], float] | None = None
        self._patience_s = patience_s
        self._answered = False

    def run(self, make: Callable[[], Awaitable[T]], what: str, *, sent_bytes: int = 0) -> T:
        """Make a request, again and again if need be, and wait for its answer.

        Args:
            make: Makes the request; called for each attempt.
            what: What is asked for, for errors.
            sent_bytes: How much it sends.

        Raises:
            FileNotFoundError: There is no such object.
            FileExistsError: There is one already.
            StoreError: Anything else.
        """
        running = self._attempts(make, what, sent_bytes)
        future = asyncio.run_coroutine_threadsafe(running, event_loop())
        try:
            return self.outcome(future, what)
        except BaseException:
            future.cancel()
            raise

    def outcome(self, future: concurrent.futures.Future[T], what: str) -> T:
        """Wait for what is under way; where there is a limit, only a moment longer than that, which may move meanwhile.

        Args:
            future: What is under way.
            what: What it is, for errors.

        Raises:
            StoreUnreachable: The limit has passed; it is still under way.
        """
        grace = Grace()
        while True:
            with contextlib.suppress(concurrent.futures.TimeoutError):
                return future.result(LOOK_S)
            if future.done():
                return future.result()
            if self.is_over(grace):
                raise StoreUnreachable(f"{self.url} did not answer in time ({what})")

    def is_over(self, grace: Grace) -> bool:
        """Return whether somebody who waits is to stop: the limit has passed, and a moment more."""
        return grace.is_over(self.limit, _GRACE_S)

    def left_s(self) -> float:
        """How long a request may be repeated from now on."""
        if self.limit is None:
            return self._patience_s
        # Tidying up comes after the end, and may take a moment as well.
        return max(_GRACE_S, self.limit())

    async def _attempts(self, make: Callable[[], Awaitable[T]], what: str, sent_bytes: int) -> T:
        ends = time.monotonic() + self.left_s()
        attempt = 0
        while True:
            await self.limiter.take(sent_bytes)
            left = max(0.0, ends - time.monotonic())
            allowed = self._attempt_s(sent_bytes, left)
            try:
                async with asyncio.timeout(allowed):
                    answer = await make()
            except Exception as error:
                translated = self.translated(error, what, allowed)
                # Whoever never answered may well not be there at all.
                hopeless = not self._answered or not isinstance(translated, StoreUnreachable)
                pause = min(_LONGEST_PAUSE_S, _PAUSE_S * 2**attempt) * random.uniform(0.5, 1)
                if hopeless or time.monotonic() + pause >= ends:
                    raise translated from error
            else:
                self._answered = True
                return answer
            attempt += 1
            await asyncio.sleep(pause)

    def _attempt_s(self, sent_bytes: int, left_s: float) -> float:
        """How long to wait for one attempt: a request that hangs must not use up all the time there is."""
        if not self._answered:
            return min(left_s, _FIRST_S)
        rate = self.meter.read().sent_bytes_per_s or _SLOWEST_BYTES_PER_S
        allowed = _ATTEMPT_S + 4 * sent_bytes / max(rate, 1.0)
        return min(left_s, max(allowed if self.limit is None else min(allowed, 0.6 * left_s), 1.0))

    def translated(self, error: Exception, what: str, waited_s: float = 0.0) -> Exception:
        """Return what an error of obstore means to a user: the one place for it.

        Args:
            error: The error.
            what: What was asked for.
            waited_s: How long, if it is that time has run out.
        """
        from obstore import exceptions  # noqa: PLC0415 - loaded by now, but not for local stores

        if isinstance(error, TimeoutError):
            return StoreUnreachable(f"{self.url} did not answer within {waited_s:.3g} s ({what})")
        # Never words anywhere in the text: it has addresses in it, and a name may be of any letters.
        text = str(error)
        status, code = _STATUS.search(text), _CODE.search(text)
        if _NO_BUCKET in text or (code and code[1] in _NO_BUCKET_CODES):
            self._answered = True
            return StoreError(
                f"{self.url}: the bucket does not exist", hint="make it, or name another one"
            )
        if isinstance(error, FileNotFoundError):
            self._answered = True
            return FileNotFoundError(what)
        if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
            self._answered = True
            return FileExistsError(what)
        if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
            return StoreDenied(f"{self.url} refuses access to {what}: {_reason(text)}")
        if not isinstance(error, exceptions.BaseError):
            return error
        if (status and status[1] == _FULL_STATUS) or (code and code[1] in _FULL_CODES):
            return StoreFull(f"no room left in {self.url}: {_reason(text)}")
        if isinstance(error, exceptions.NotSupportedError) or (
            status is not None and int(status[1]) < 500 and status[1] not in ("408", "429")
        ):
            return StoreError(f"{self.url} refuses {what}: {_reason(text)}")
        return StoreUnreachable(f"{self.url} cannot be reached for {what}: {_reason(text)}")


def _reason(text: str) -> str:
    """Return what matters of obstore's message, without addresses that may be signed."""
    status = _STATUS.search(text)
    code = _CODE.search(text)
    if code:
        return f"{code[1]} ({status[1]})" if status else code[1]
    if status:
        return f"status {status[1]}"
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    with contextlib.suppress(IndexError):
        # Causes are nested: the last one is the reason.
        line = line.rsplit(" - ", 1)[1]
    return re.sub(r"\bhttps?://\S+", "...", line)[:200]
