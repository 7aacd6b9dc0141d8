"""A compressed body is complete only where all of its codings have come to their ends."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
import zlib

import pytest
import requests
from home import Home
from urllib3.exceptions import DecodeError

from stac_gitlab import (
    GitLabStacIO,
    IncompleteDownloadError,
    InvalidResponseError,
    NotFoundError,
    RetryPolicy,
)
from stac_gitlab.download.transfer import NotModified
from stac_gitlab.http.body import body_reader, is_decodable, is_encoded
from stac_gitlab.testing import Answer, Fault, LoopbackServer

CONTENT = random.Random(1).randbytes(3000) * 3


def bare_deflate(content: bytes) -> bytes:
    compressing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressing.compress(content) + compressing.flush()


MEMBERS = gzip.compress(CONTENT[:4000]) + gzip.compress(b"") + gzip.compress(CONTENT[4000:])
WHOLE = {
    "gzip": ("gzip", gzip.compress(CONTENT)),
    "upper case": (" GZip ", gzip.compress(CONTENT)),
    "x-gzip": ("x-gzip", gzip.compress(CONTENT)),
    "members": ("gzip", MEMBERS),
    "zlib": ("deflate", zlib.compress(CONTENT)),
    "bare deflate": ("deflate", bare_deflate(CONTENT)),
    "gzip in gzip": ("gzip, gzip", gzip.compress(gzip.compress(CONTENT))),
    "deflate in gzip": ("deflate, identity, gzip", gzip.compress(zlib.compress(CONTENT))),
}


class Pieces(io.BytesIO):
    """Gives its content in pieces of at most so many bytes, as a recorder's response may."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self._size = size

    def read(self, size: int | None = -1) -> bytes:
        return super().read(self._size if size is None or size < 0 else min(size, self._size))


def response_with(coding: str, body: bytes, piece: int = 10**6) -> requests.Response:
    response = requests.Response()
    response.url = "https://hub.example/x"
    response.headers["Content-Encoding"] = coding
    response.raw = Pieces(body, piece)
    return response


def decoded(coding: str, body: bytes, *, piece: int = 10**6, size: int = 1000) -> bytes:
    read = body_reader(response_with(coding, body, piece))
    content = b""
    while data := read(size):
        assert len(data) <= size
        content += data
    assert read(size) == b""
    return content


@pytest.mark.parametrize("piece", [1, 7, 10**6])
@pytest.mark.parametrize("size", [1, 1000, 10**6])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_body_is_decoded(name: str, piece: int, size: int) -> None:
    coding, body = WHOLE[name]
    assert decoded(coding, body, piece=piece, size=size) == CONTENT


@pytest.mark.parametrize("name", WHOLE)
def test_no_body_that_ends_early_is_accepted(name: str) -> None:
    coding, body = WHOLE[name]
    first = len(gzip.compress(CONTENT[:4000]))
    ends = {first, first + len(gzip.compress(b""))}
    for cut in [*range(1, 30), *range(30, len(body) - 30, 97), *range(len(body) - 30, len(body))]:
        if name == "members" and cut in ends:
            continue
        with pytest.raises(DecodeError, match="ends before its end marker"):
            decoded(coding, body[:cut])


@pytest.mark.parametrize(
    "at", [1, 10, 2000, -6, -1], ids=["head", "start", "body", "crc", "length"]
)
def test_no_garbled_body_is_accepted(at: int) -> None:
    for first in (b"", gzip.compress(b"first")):
        body = bytearray(gzip.compress(CONTENT))
        body[at] ^= 0xFF
        with pytest.raises(DecodeError):
            decoded("gzip", first + body)


@pytest.mark.parametrize("name", ["gzip", "zlib", "bare deflate", "gzip in gzip"])
@pytest.mark.parametrize("more", [b"x", b"\x1f\x8c", b"\0\0garbage", b"\x1f"])
def test_other_bytes_behind_the_end_are_an_error(name: str, more: bytes) -> None:
    coding, body = WHOLE[name]
    with pytest.raises(DecodeError, match="other bytes follow"):
        decoded(coding, body + more, piece=1)


@pytest.mark.parametrize("piece", [1, 10**6])
def test_zeros_behind_the_end_are_padding(piece: int) -> None:
    body = gzip.compress(CONTENT) + bytes(40_000)
    assert decoded("gzip", body, piece=piece) == CONTENT
    assert decoded("gzip", body + gzip.compress(b"!"), piece=piece) == CONTENT + b"!"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip"])
def test_a_body_without_bytes_has_not_reached_its_end_marker(coding: str) -> None:
    assert decoded("identity", b"") == b""
    for body in (b"", gzip.compress(b"")) if coding == "gzip, gzip" else (b"",):
        with pytest.raises(DecodeError, match="ends before its end marker"):
            decoded(coding, body)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, x-foo", "gzip" + ", gzip" * 5])
def test_a_coding_that_was_not_requested_is_an_error(coding: str) -> None:
    response = response_with(coding, b"")
    assert is_encoded(response)
    assert not is_decodable(response)
    with pytest.raises(InvalidResponseError, match=r"cannot be decoded.*Accepted are: gzip"):
        body_reader(response)


@pytest.mark.parametrize("coding", ["", " ", "identity", "Identity, identity"])
def test_identity_is_no_coding(coding: str) -> None:
    assert not is_encoded(response_with(coding, b""))
    assert decoded(coding, CONTENT) == CONTENT


def test_no_more_is_decoded_than_was_asked_for() -> None:
    body = gzip.compress(gzip.compress(bytes(100 * 2**20)))
    read = body_reader(response_with("gzip, gzip", body))
    tracemalloc.start()
    assert len(read(1000)) <= 1000
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


# -- what a user sees -----------------------------------------------------------------------------

CUT = gzip.compress(b'{"a": 1}\n' * 1000)[:-9]
TWICE = RetryPolicy(max_attempts=2, backoff_base=0)


def test_a_text_that_was_cut_is_requested_again(server: LoopbackServer) -> None:
    server.route("/x", CUT, headers={"Content-Encoding": "gzip"})
    with (
        GitLabStacIO(retry=TWICE) as stac_io,
        pytest.raises(InvalidResponseError, match="end marker"),
    ):
        stac_io.read_text(f"{server.url}/x")
    assert len(server.requests) == 2


CODED = {"Content-Encoding": "gzip"}


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_no_bytes_at_all_are_no_compressed_document(server: LoopbackServer, framing: str) -> None:
    server.route("/x", b"", headers=CODED)
    server.inject(Fault(chunked=framing == "chunked", close=framing == "close", times=None))
    with (
        GitLabStacIO(retry=TWICE) as stac_io,
        pytest.raises(InvalidResponseError, match="end marker"),
    ):
        stac_io.read_text(f"{server.url}/x")
    assert len(server.requests) == 2


def test_a_stated_length_of_zero_leaves_nothing_to_decode(server: LoopbackServer) -> None:
    server.route("/x", b"", headers=CODED)
    with GitLabStacIO(retry=TWICE) as stac_io:
        assert stac_io.read_text(f"{server.url}/x") == ""


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("DELETE", 204)])
def test_a_response_that_never_has_a_body_leaves_nothing_to_decode(
    server: LoopbackServer, method: str, status: int
) -> None:
    headers = (("content-encoding", "gzip"), ("transfer-encoding", "chunked"))
    server.route("/x", Answer(status, headers if method == "HEAD" else headers[:1], b""))
    with GitLabStacIO(retry=TWICE) as stac_io:
        size = stac_io.session.fetch(
            f"{server.url}/x", lambda document: len(document.body), max_bytes=9, method=method
        )
    assert size == 0


def test_a_coding_that_was_not_requested_is_not_requested_again(server: LoopbackServer) -> None:
    server.route("/x", b"x", headers={"Content-Encoding": "br"})
    with GitLabStacIO(retry=TWICE) as stac_io, pytest.raises(InvalidResponseError, match="'br'"):
        stac_io.read_text(f"{server.url}/x")
    assert len(server.requests) == 1


@pytest.mark.parametrize("coding", ["gzip", "br"])
def test_an_error_is_reported_although_its_body_is_broken(
    server: LoopbackServer, coding: str
) -> None:
    server.route("/x", CUT, status=404, headers={"Content-Encoding": coding})
    with GitLabStacIO(retry=TWICE) as stac_io, pytest.raises(NotFoundError):
        stac_io.read_text(f"{server.url}/x")


def test_no_file_is_made_of_a_compressed_body_that_was_cut(home: Home) -> None:
    home.server.inject(Fault(body=CUT, headers={"Content-Encoding": "gzip"}, times=None))
    home.fails(IncompleteDownloadError, "ends before its end marker")


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_no_file_is_made_of_a_compressed_body_without_bytes(home: Home, framing: str) -> None:
    home.server.inject(
        Fault(
            body=b"",
            headers=CODED,
            chunked=framing == "chunked",
            close=framing == "close",
            times=None,
        )
    )
    home.fails(IncompleteDownloadError, "ends before its end marker")


def test_an_empty_file_is_made_of_a_compressed_body_with_a_stated_length_of_zero(
    home: Home,
) -> None:
    home.server.inject(Fault(body=b"", headers=CODED))
    result = home.download()
    assert (result.size, result.verified) == (0, True)
    home.assert_there(b"")


def test_a_304_with_the_coding_of_the_file_leaves_nothing_to_decode(home: Home) -> None:
    home.server.inject(Fault(status=304, headers={**CODED, "ETag": '"1"'}))
    with pytest.raises(NotModified):
        home.download(known='"1"')
    assert len(home.server.requests) == 1
