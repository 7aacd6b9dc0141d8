"""The head of an answer, its status line and its headers: read, bounded, taken apart.

The standard library has a parser for mail at this, which costs as much as sending the request, and
reads what follows on a garbled line as the text of the mail: a length among it would be overlooked.

Source: RFC 9112, "Message Format".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, HTTPMessage, RemoteDisconnected
from typing import BinaryIO

__all__ = ["MAX_HEAD", "Head", "coding_in", "is_chunked", "length_in"]

MAX_HEAD = 256 * 1024
"""Bytes that a head may have."""

_MAX_INTERIM = 100

_STATUS_LINE = re.compile(r"HTTP/(\d\.\d)[ \t]+([1-9]\d\d)(?:[ \t](.*))?")
# Neither this nor the next may try to end the same white space at each of its characters: a server
# can send as much of it as fits.
_HEADER = re.compile(r"^([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)\r?\n", re.MULTILINE)
# A header may go on in lines that begin with white space, which stands for a single space.
_FOLD = re.compile(r"(?<![ \t])[ \t]*(?:\r?\n[ \t]+)+")
_LENGTH = re.compile(r"[ \t]*([0-9]{1,18})[ \t]*")


@dataclass(frozen=True)
class Head:
    """The head of an answer.

    Attributes:
        version: 10 for HTTP/1.0 and what is older, 11 for HTTP/1.1.
        status: The three digits.
        reason: What the server calls that.
        headers: Names and values as they came, without the white space around them.
    """

    version: int
    status: int
    reason: str
    headers: HTTPMessage

    @property
    def announces_body(self) -> bool:
        """Whether there is word of a body, sensible or not."""
        lengths = self.headers.get_all("Content-Length", ["0"])
        return lengths != ["0"] or "Transfer-Encoding" in self.headers

    @classmethod
    def read_from(cls, stream: BinaryIO) -> Head:
        """Read the head of the next answer, and pass over interim ones (103, say) before it.

        Raises:
            RemoteDisconnected: If the connection ends before the head does.
            HTTPException: If it is too long, garbled, or not of HTTP/1.
        """
        for _ in range(_MAX_INTERIM):
            status_line, *lines = _lines_from(stream)
            match = _STATUS_LINE.fullmatch(status_line.rstrip())
            if match is None or match[1] > "1.9":
                raise BadStatusLine("it does not begin as HTTP/1 does")
            status, reason = int(match[2]), match[3] or ""
            if status >= 200:
                version = 11 if match[1] > "1.0" else 10
                return cls(version, status, reason.strip(), _headers_in(lines))
            if status == 101:
                break
        raise HTTPException(f"{status} in place of an answer")


def is_chunked(headers: Mapping[str, str] | HTTPMessage) -> bool:
    """Tell whether a body comes in chunks, each with its length."""
    return coding_in(headers) == "chunked"


def coding_in(headers: Mapping[str, str] | HTTPMessage) -> str:
    """Return how a body is coded for the way, which may say where it ends; empty for not at all."""
    coding = _said("Transfer-Encoding", headers).strip(" \t").lower()
    return "" if coding == "identity" else coding


def length_in(headers: Mapping[str, str] | HTTPMessage) -> int | None:
    """Return how many bytes a body is said to have, or None where nothing sensible is said."""
    said = _said("Content-Length", headers)
    if "," in said:
        # Said twice, and twice the same, it counts: proxies join headers that are repeated.
        said, *others = {part.strip(" \t") for part in said.split(",")}
        if others:
            return None
    match = _LENGTH.fullmatch(said)
    return int(match[1]) if match else None


def _said(name: str, headers: Mapping[str, str] | HTTPMessage) -> str:
    """Return what headers say under a name; what they say more than once is joined by commas."""
    if isinstance(headers, HTTPMessage):
        return ", ".join(headers.get_all(name, ()))
    return headers.get(name, "")


class _Headers(HTTPMessage):
    """Headers that are listed as they came, without a search for what no mail may hold."""

    def items(self) -> list[tuple[str, str]]:
        return [*self.raw_items()]


def _lines_from(stream: BinaryIO) -> list[str]:
    """Return the lines of a head, with the breaks at their ends, without the empty one."""
    lines: list[str] = []
    room = MAX_HEAD
    while (line := stream.readline(room + 1)) not in (b"\r\n", b"\n"):
        room -= len(line)
        if room < 0:
            raise HTTPException(f"got more than {MAX_HEAD} bytes of head")
        if not line.endswith(b"\n"):
            raise RemoteDisconnected("Remote end closed connection without response")
        lines.append(line.decode("latin-1"))
    return lines or [""]


def _headers_in(lines: list[str]) -> HTTPMessage:
    text = "".join(lines)
    found = _HEADER.findall(text)
    if len(found) != len(lines):
        unfolded = _FOLD.sub(" ", text)
        found = _HEADER.findall(unfolded)
        if len(found) != unfolded.count("\n"):
            raise HTTPException("a header that is garbled")
    headers = _Headers()
    for name, value in found:
        headers.set_raw(name, value.strip(" \t"))
    return headers
