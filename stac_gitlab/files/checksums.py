"""Checksums as the STAC file extension writes them: multihashes in hexadecimal.

A multihash is the code of a hash function, the length of the digest, and the digest, which may be
truncated.

Source: STAC file extension 2.1.0 (``file:checksum``) and the multicodec table.
"""

from __future__ import annotations

import hashlib
import os
import queue
import re
import threading
from dataclasses import dataclass
from typing import Any

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
# Code: (name in hashlib, full digest length in bytes).
_FUNCTIONS: dict[int, tuple[str, int]] = {
    0x11: ("sha1", 20),
    0x12: ("sha256", 32),
    0x13: ("sha512", 64),
    0x14: ("sha3_512", 64),
    0x15: ("sha3_384", 48),
    0x16: ("sha3_256", 32),
    0x17: ("sha3_224", 28),
    0x18: ("shake_128", 32),
    0x19: ("shake_256", 64),
    0x20: ("sha384", 48),
    0xD5: ("md5", 16),
    0x1013: ("sha224", 28),
    0x1014: ("sha512_224", 28),
    0x1015: ("sha512_256", 32),
    0x1053: ("ripemd160", 20),
    0x534D: ("sm3", 32),
    **{0xB200 + n: ("blake2b", n) for n in range(1, 65)},
    **{0xB240 + n: ("blake2s", n) for n in range(1, 33)},
}


class UnknownChecksumError(ValueError):
    """A text is not a multihash, or its hash function is not available."""


@dataclass(frozen=True)
class Checksum:
    """The expected digest of a file.

    Attributes:
        multihash: The multihash in lower-case hexadecimal.
        algorithm: The name of the hash function in hashlib.
        digest: The digest, possibly truncated.
        full_length: The bytes of a digest that is not truncated.
    """

    multihash: str
    algorithm: str
    digest: bytes
    full_length: int

    @classmethod
    def parse(cls, text: object) -> Checksum:
        """Read a ``file:checksum``.

        Raises:
            UnknownChecksumError: If it cannot be verified; the message says why.

        Example:
            >>> from stac_gitlab.files.checksums import Checksum
            >>> Checksum.parse("1220" + "00" * 32).algorithm
            'sha256'
        """
        if not isinstance(text, str) or not _HEX.fullmatch(text):
            raise UnknownChecksumError("it is not a hexadecimal multihash")
        data = bytes.fromhex(text)
        code, data = _varint(data)
        length, digest = _varint(data)
        if length != len(digest) or not digest:
            raise UnknownChecksumError(
                "it is not a multihash: its length is not the one that it states. A bare digest "
                "does not name its hash function"
            )
        if code not in _FUNCTIONS:
            raise UnknownChecksumError(f"Python does not have the hash function {code:#x}")
        name, full_length = _FUNCTIONS[code]
        if length > full_length:
            raise UnknownChecksumError(f"its digest is longer than those of {name}")
        checksum = cls(text.lower(), name, digest, full_length)
        try:
            checksum.hasher()
        except ValueError:
            raise UnknownChecksumError(f"this Python lacks the hash function {name}") from None
        return checksum

    @classmethod
    def of_sha256(cls, digest: str) -> Checksum:
        """Return the checksum for a SHA-256 in hexadecimal; raises what :meth:`parse` does."""
        return cls.parse(f"1220{digest}")

    def hasher(self) -> Any:
        """Return a new hashlib object of the function."""
        if self.algorithm in ("blake2b", "blake2s"):
            return getattr(hashlib, self.algorithm)(digest_size=self.full_length)
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def digest_of(self, hasher: Any) -> bytes:
        """Return the digest of a :meth:`hasher`, truncated as the expected one is."""
        length = [self.full_length] if self.algorithm.startswith("shake") else []
        digest: bytes = hasher.digest(*length)
        return digest[: len(self.digest)]

    def __str__(self) -> str:
        return self.multihash


def checksum_of_file(path: str | os.PathLike[str]) -> tuple[int, Checksum]:
    """Return the size of a file in bytes, and its SHA-256.

    Raises:
        OSError: If it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), Checksum.of_sha256(digest)


def _varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(data[:9]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, data[index + 1 :]
    raise UnknownChecksumError("it is not a multihash: its first number is incomplete")


# Smaller buffers take more system calls, larger ones more of the processor's cache.
BUFFER_SIZE = 512 * 1024
# With this many, reading and hashing overlap although each pauses for milliseconds now and then.
_MAX_BUFFERS = 8
# Starting a thread for a smaller file takes longer than hashing it.
HASH_IN_BACKGROUND_FROM = 4 * 1024 * 1024


class HashingBuffers:
    """Buffers to read into, and the hash of what was read, in another thread for large files.

    Args:
        checksum: The expected checksum; None to hash nothing.
        expected: The expected number of bytes, None if it is unknown.

    Attributes:
        buffer: The buffer to read into next.
    """

    def __init__(self, checksum: Checksum | None, *, expected: int | None = None) -> None:
        self._checksum = checksum
        self._hasher = None if checksum is None else checksum.hasher()
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[tuple[memoryview, int] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if expected is None:
            expected = HASH_IN_BACKGROUND_FROM
        size = max(1, min(expected, BUFFER_SIZE))
        self.buffer = memoryview(bytearray(size))
        self._buffers = 1
        if expected >= HASH_IN_BACKGROUND_FROM and self._hasher is not None:
            self._thread = threading.Thread(
                target=self._hash_full_buffers, name="stac-gitlab-hash", daemon=True
            )
            self._thread.start()

    def feed(self, count: int) -> None:
        """Hash the first `count` bytes of the buffer."""
        if self._thread is not None:
            self._full.put((self.buffer, count))
            self.buffer = self._next_buffer()
        elif self._hasher is not None:
            self._hasher.update(self.buffer[:count])

    def _next_buffer(self) -> memoryview:
        if self._free.empty() and self._buffers < _MAX_BUFFERS:
            # Two are enough where the network is slower than the hash, which is the usual case.
            self._buffers += 1
            return memoryview(bytearray(BUFFER_SIZE))
        return self._free.get()

    def digest(self) -> bytes | None:
        """Return the digest of all bytes so far, or None if there is no checksum."""
        self.close()
        return None if self._checksum is None else self._checksum.digest_of(self._hasher)

    def close(self) -> None:
        """End the thread, if there is one. Later bytes are hashed without it."""
        if self._thread is not None:
            self._full.put(None)
            self._thread.join()
            self._thread = None

    def _hash_full_buffers(self) -> None:
        while (work := self._full.get()) is not None:
            buffer, count = work
            self._hasher.update(buffer[:count])  # type: ignore[union-attr]  # runs with one only
            self._free.put(buffer)
