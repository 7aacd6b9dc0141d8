"""The head of a response, and what it says about the end of the body."""

from __future__ import annotations

import io
import re
from collections.abc import ItemsView, Iterable, Mapping, ValuesView
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, HTTPMessage, RemoteDisconnected
from typing import Any, BinaryIO, Self

import requests
from requests.structures import CaseInsensitiveDict

MAX_HEAD = 256 * 1024
"""Upper limit of the head of a response, in bytes."""


_MAX_INTERIM = 100
_STATUS_LINE = re.compile(r"HTTP/(\d\.\d)[ \t]+([1-9]\d\d)(?:[ \t](.*))?")
# Each of these takes linear time, however much white space a server sends.
_HEADER = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)\r?\n", re.MULTILINE)
# RFC 9112, 5.2: a line that begins with white space continues the header before it.
_FOLD = re.compile(r"(?<![ \t])[ \t]*(?:\r?\n[ \t]+)+")
_LENGTH = re.compile(r"[ \t]*([0-9]{1,18})[ \t]*")


@dataclass(frozen=True)
class ResponseHead:
    """The head of a response.

    Attributes:
        version: 10 for HTTP/1.0 and what is older, 11 for HTTP/1.1.
        status: The status code.
        reason: The reason phrase.
        fields: Names and values of the headers in their order, without the white space around them.
    """

    version: int
    status: int
    reason: str
    fields: list[tuple[str, str]]

    @classmethod
    def read_from(cls, stream: BinaryIO) -> ResponseHead:
        """Read the head of the next response, and skip interim responses (such as 103) before it.

        Raises:
            RemoteDisconnected: If the connection ends before the head does.
            HTTPException: If it is too large, malformed, or not HTTP/1.
        """
        for _ in range(_MAX_INTERIM):
            status_line, _, lines = head_text(stream).partition("\n")
            match = _STATUS_LINE.fullmatch(status_line.rstrip())
            if match is None or match[1] > "1.9":
                raise BadStatusLine("the response does not begin with an HTTP/1 status line")
            status, reason = int(match[2]), match[3] or ""
            if status >= 200:
                version = 11 if match[1] > "1.0" else 10
                return cls(version, status, reason.strip(), _fields_in(lines))
            if status == 101:
                break
        raise HTTPException(f"{status} in place of a final response")


def is_chunked(headers: Mapping[str, str]) -> bool:
    """Tell whether a body comes in chunks, each with its length."""
    return coding_in(headers) == "chunked"


def coding_in(headers: Mapping[str, str]) -> str:
    """Return the transfer coding of a body, or an empty text if there is none."""
    coding = headers.get("Transfer-Encoding", "").strip(" \t").lower()
    return "" if coding == "identity" else coding


def length_in(headers: Mapping[str, str]) -> int | None:
    """Return the length that the headers give for a body, or None without a valid one."""
    value = headers.get("Content-Length", "")
    if "," in value:
        # RFC 9110, 8.6: proxies join repeated headers. Equal values count as one.
        value, *others = {part.strip(" \t") for part in value.split(",")}
        if others:
            return None
    match = _LENGTH.fullmatch(value)
    return int(match[1]) if match else None


class Headers(CaseInsensitiveDict[str]):
    """Headers, which are looked up without the detour of the base class.

    Args:
        fields: Names and values. The values of a repeated name are joined by commas.
    """

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._store: dict[str, tuple[str, str]] = {}
        for name, value in fields:
            key = name.lower()
            known = self._store.get(key)
            self._store[key] = (
                (name, value) if known is None else (known[0], f"{known[1]}, {value}")
            )

    def get(self, name: str, default: Any = None) -> Any:
        found = self._store.get(name.lower())
        return default if found is None else found[1]

    def copy(self) -> Self:
        return type(self)(self._store.values())

    def items(self) -> ItemsView[str, str]:
        """Return the names and values."""
        return dict(self._store.values()).items()

    def values(self) -> ValuesView[str]:
        """Return the values."""
        return dict(self._store.values()).values()


class Message(HTTPMessage):
    """Headers as http.client has them, without the checks of the email package."""

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in fields:
            self.set_raw(name, value)

    def items(self) -> list[tuple[str, str]]:
        return [*self.raw_items()]


def head_text(stream: BinaryIO) -> str:
    """Return the lines of a head, or a trailer, with their line ends, without the empty line."""
    if isinstance(stream, io.BufferedReader):
        # The usual head has arrived, and its first empty line is the end of it.
        arrived = stream.peek()
        end = arrived.find(b"\n\r\n") + 1
        if end and not arrived.startswith((b"\n", b"\r\n")) and b"\n\n" not in arrived[:end]:
            return stream.read(end + 2)[:end].decode("latin-1")
    lines: list[bytes] = []
    room = MAX_HEAD
    while (line := stream.readline(room + 1)) not in (b"\r\n", b"\n"):
        room -= len(line)
        if room < 0:
            raise HTTPException(f"got more than {MAX_HEAD} bytes of headers")
        if not line.endswith(b"\n"):
            raise RemoteDisconnected("Remote end closed connection without response")
        lines.append(line)
    return b"".join(lines).decode("latin-1")


def _fields_in(text: str) -> list[tuple[str, str]]:
    found = _HEADER.findall(text)
    if len(found) != text.count("\n"):
        unfolded = _FOLD.sub(" ", text)
        found = _HEADER.findall(unfolded)
        if len(found) != unfolded.count("\n"):
            raise HTTPException("a malformed header")
    return [(name, value.strip(" \t")) for name, value in found]


def is_well_framed(response: requests.Response) -> bool:
    """Tell whether the headers say unambiguously where the body ends.

    The standard library accepts ``+5`` and ``5_0`` as lengths, and returns a body that is
    ``gzip, chunked`` with its chunk sizes.
    """
    headers = response.headers
    is_valid = length_in(headers) is not None or not headers.get("Content-Length", "").strip()
    return coding_in(headers) in ("", "chunked") and is_valid
