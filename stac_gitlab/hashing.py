"""Bytes hashed on their way from the socket to the file, without slowing the socket."""

from __future__ import annotations

import queue
import threading

from stac_gitlab.multihash import Checksum

__all__ = ["BUFFER_SIZE", "Hashing"]

# Fewer bytes at a time cost more calls to the system, more of them more of the processor's cache.
BUFFER_SIZE = 512 * 1024
# At the most; enough for the socket and the hash to be busy at the same time, although the system
# lets one of them wait for some milliseconds now and then.
BUFFERS = 8
# Below this, starting a thread costs more than hashing.
HASH_IN_BACKGROUND_FROM = 4 * 1024 * 1024


class Hashing:
    """Hands out buffers to read into and hashes what was read, in another thread where it pays.

    Args:
        checksum: What the bytes will be compared with; None to hash nothing.
        expected: How many bytes there will be; None where nobody knows.

    Attributes:
        buffer: The buffer to read into next.
    """

    def __init__(self, checksum: Checksum | None, *, expected: int | None = None) -> None:
        self._checksum = checksum
        self._hasher = None if checksum is None else checksum.hasher()
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        size = BUFFER_SIZE if expected is None else max(1, min(expected, BUFFER_SIZE))
        self.buffer = memoryview(bytearray(size))
        self._made = 1
        in_background = expected is None or expected >= HASH_IN_BACKGROUND_FROM
        if in_background and self._hasher is not None:
            self._thread = threading.Thread(target=self._work, name="stac-gitlab-hash", daemon=True)
            self._thread.start()

    def feed(self, count: int) -> None:
        """Hash the first `count` bytes of the buffer."""
        if self._thread is not None:
            self._full.put((self.buffer, count))
            self.buffer = self._next_buffer()
        elif self._hasher is not None:
            self._hasher.update(self.buffer[:count])

    def _next_buffer(self) -> memoryview:
        if self._free.empty() and self._made < BUFFERS:
            # Where the network is slower than the hash, which is the rule, two are enough.
            self._made += 1
            return memoryview(bytearray(BUFFER_SIZE))
        return self._free.get()

    def digest(self) -> bytes | None:
        """Return the digest of everything that was fed, or None if nothing is hashed."""
        self.close()
        return None if self._checksum is None else self._checksum.digest_of(self._hasher)

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._thread is not None:
            self._full.put(None)
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while (work := self._full.get()) is not None:
            buffer, count = work
            self._hasher.update(buffer[:count])  # type: ignore[union-attr]  # runs with one only
            self._free.put(buffer)
