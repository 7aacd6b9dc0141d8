"""What a server says of the content that it sends, and what is made of it."""

from __future__ import annotations

import hashlib

import fault_server as faulty
import pytest
from home import Home
from sample_items import BODY, CHANGED, SHA256

from stac_gitlab.errors import ChecksumMismatchError
from tests.raw_server import RawServer


@pytest.mark.parametrize("etag", ['"on\xe9\x80"', '"one\t"'])
def test_an_etag_that_cannot_be_sent_back_is_not(home: Home, etag: str) -> None:
    beginning = f"HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: 9\r\n\r\nlake"
    whole = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nlakes.bin"
    answers = iter([beginning.encode("latin-1"), whole.encode()])
    with RawServer(lambda s, c: s.send(c, [next(answers)])) as server:
        home.bring(f"{server.url}/lakes.bin")
        assert b"If-Range" not in server.requests[1]
    home.assert_there(b"lakes.bin")


@pytest.mark.parametrize(("seconds", "is_proof"), [("41", False), ("42", True)])
def test_what_was_changed_in_the_second_in_which_it_was_sent_may_change_again(
    seconds: str, is_proof: bool, home: Home
) -> None:
    day = "Fri, 20 Nov 2026 11:51:"
    dates = f"Last-Modified: {day}41 GMT\r\nDate: {day}{seconds} GMT\r\n"
    head = f"HTTP/1.1 200 OK\r\n{dates}Content-Length: 9\r\n\r\n"
    answers = iter([f"{head}lake", f"{head}lakes.bin"])
    with RawServer(lambda s, c: s.send(c, [next(answers).encode()])) as server:
        received = home.bring(f"{server.url}/lakes.bin")
        assert (b"If-Range" in server.requests[1]) is is_proof
        assert received.validator == (f"{day}41 GMT" if is_proof else None)
    home.assert_there(b"lakes.bin")


def gitlab_headers(content: bytes, size: int | None = None) -> dict[str, str]:
    return {
        "x-gitlab-content-sha256": hashlib.sha256(content).hexdigest(),
        "x-gitlab-size": str(len(content) if size is None else size),
    }


def test_the_hash_that_gitlab_sends_is_compared(home: Home) -> None:
    home.file.headers = gitlab_headers(BODY)
    assert home.bring().checksum == SHA256
    home.file.headers = gitlab_headers(CHANGED)
    home.fails(ChecksumMismatchError, "sha256")


def test_the_hash_that_gitlab_sends_is_not_compared_where_it_describes_a_pointer(
    home: Home,
) -> None:
    home.file.headers = gitlab_headers(faulty.LFS_POINTER)
    assert home.bring().checksum is None
    home.file.headers = {"x-gitlab-content-sha256": hashlib.sha256(b"pointer").hexdigest()}
    home.bring()
    home.assert_there()


@pytest.mark.parametrize("digest", ["", "none", "00", "zz" * 32])
def test_a_hash_of_gitlab_that_is_none_is_passed_over(home: Home, digest: str) -> None:
    home.file.headers = {"x-gitlab-content-sha256": digest, "x-gitlab-size": "40000"}
    assert home.bring().checksum is None


def test_the_checksum_of_the_metadata_beats_the_one_of_the_server(home: Home) -> None:
    home.file.headers = gitlab_headers(CHANGED)
    assert home.bring(checksum=SHA256).checksum == SHA256
