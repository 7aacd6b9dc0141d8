"""Checksums as the STAC file extension writes them: multihashes in hexadecimal.

A multihash is a code for the function, the length of the digest, and the digest, which may be a
truncated one.

Source: STAC file extension 2.1.0 (``file:checksum``) and the multicodec table.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["Checksum", "UnknownChecksumError"]

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
    """A text is no multihash, or one of a function that this Python does not have."""


@dataclass(frozen=True)
class Checksum:
    """What the bytes of a file have to hash to.

    Attributes:
        algorithm: The name of the function in hashlib.
        digest: The digest, possibly truncated.
        full_length: Bytes that the function gives without truncation.
    """

    algorithm: str
    digest: bytes
    full_length: int

    @classmethod
    def parse(cls, text: object) -> Checksum:
        """Read a ``file:checksum``.

        Raises:
            UnknownChecksumError: If it cannot be verified; the message says why.

        Example:
            >>> from stac_gitlab.multihash import Checksum
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
                "it is not a multihash: the length it names is not its own. A bare digest does not "
                "say which function made it"
            )
        if code not in _FUNCTIONS:
            raise UnknownChecksumError(f"the hash function {code:#x} is not one Python has")
        name, full_length = _FUNCTIONS[code]
        if length > full_length:
            raise UnknownChecksumError(f"its digest is longer than one of {name}")
        checksum = cls(name, digest, full_length)
        try:
            checksum.hasher()
        except ValueError:
            raise UnknownChecksumError(f"this Python lacks the hash function {name}") from None
        return checksum

    @classmethod
    def of_sha256(cls, digest: str) -> Checksum:
        """Return the checksum for a SHA-256 in hexadecimal.

        Raises:
            UnknownChecksumError: If it is not one.
        """
        if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
            raise UnknownChecksumError("it is not a SHA-256 in hexadecimal")
        return cls("sha256", bytes.fromhex(digest), 32)

    def hasher(self) -> Any:
        """Return a new hash object of the function, as hashlib makes it."""
        if self.algorithm in ("blake2b", "blake2s"):
            return getattr(hashlib, self.algorithm)(digest_size=self.full_length)
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def digest_of(self, hasher: Any) -> bytes:
        """Return the digest of what went into a :meth:`hasher`, as long as the one expected."""
        if self.algorithm.startswith("shake"):
            digest: bytes = hasher.digest(self.full_length)
        else:
            digest = hasher.digest()
        return digest[: len(self.digest)]

    def __str__(self) -> str:
        """Return the multihash in hexadecimal."""
        code = next(
            code
            for code, function in _FUNCTIONS.items()
            if function == (self.algorithm, self.full_length)
        )
        return (_as_varint(code) + _as_varint(len(self.digest)) + self.digest).hex()


def _varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(data[:9]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value, data[index + 1 :]
    raise UnknownChecksumError("it is not a multihash: its first number does not end")


def _as_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
