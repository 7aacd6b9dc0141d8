"""What came is the file that was promised, or it is refused with a word on what it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from home import Home
from sample_items import BODY, TOKEN, item_of

from stac_gitlab.auth import Credentials
from stac_gitlab.download.source import Locator, Source, url_digest
from stac_gitlab.download.transfer import download_file
from stac_gitlab.errors import (
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    InvalidResponseError,
    NetworkError,
)
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.testing import LoopbackServer
from tests.raw_server import RawServer

# -- the URL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "why"),
    [
        ("http:///a", "has no host"),
        ("http://h:99999/a", "name or port of its host"),
        ("http://a b/c", "name or port of its host"),
        ("http://user:pw-not-shown@h/a", "user name"),
    ],
)
def test_a_url_without_a_usable_host_is_refused_with_the_reason(href: str, why: str) -> None:
    item = item_of({"a": href})
    with GitLabSession(Credentials()) as session, pytest.raises(DownloadError, match=why) as caught:
        Locator(session).locate(item, "a", item.assets["a"])
    assert "pw-not-shown" not in str(caught.value)


@pytest.mark.parametrize(
    ("href", "url"),
    [
        ("//other.example.org/a", "https://other.example.org/a"),
        ("/a", "https://h.example.org/a"),
        ("a", "https://h.example.org/items/a"),
    ],
)
def test_a_relative_href_is_joined_to_that_of_the_item(href: str, url: str) -> None:
    item = item_of({"a": href}, at="https://h.example.org/items/lakes")
    with GitLabSession(Credentials()) as session:
        source, path = Locator(session).locate(item, "a", item.assets["a"])
    assert (source.url, path) == (url, None)


# -- bodies that cannot be read --------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: +5",
        b"Content-Length: 0_5",
        b"Content-Length: 5\r\nContent-Length: 19",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ],
)
def test_a_body_with_ambiguous_framing_is_an_error(home: Home, head: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n5\r\nlakes\r\n0\r\n\r\nmore"
    with RawServer(lambda server, connection: server.send(connection, [answer])) as server:
        home.fails(
            (DownloadError, InvalidResponseError, NetworkError),
            "where the file ends|Content-Length",
            path=f"{server.url}/lakes.bin",
        )


@pytest.mark.parametrize("encoding", ["compress", "x-foo", "gzip, x-foo"])
def test_a_body_in_an_unknown_encoding_is_not_saved(
    encoding: str, server: LoopbackServer, tmp_path: Path
) -> None:
    server.route("/x", b"coded", headers={"Content-Encoding": encoding})
    with (
        GitLabSession(Credentials()) as session,
        pytest.raises(DownloadError, match="in an encoding that cannot be decoded"),
    ):
        download_file(session, Source(f"{server.url}/x", "x"), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_encoding_that_contains_the_token_is_redacted(
    server: LoopbackServer, tmp_path: Path
) -> None:
    server.route("/x", b"coded", headers={"Content-Encoding": f"x-{TOKEN}"})
    with (
        GitLabSession(Credentials(TOKEN, base_url=server.url)) as session,
        pytest.raises(DownloadError, match="in an encoding that cannot be decoded") as caught,
    ):
        download_file(session, Source(f"{server.url}/x", "x"), tmp_path / "x")
    assert TOKEN not in str(caught.value)


# -- sizes and checksums ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 39_999, 40_001, 10**15])
def test_another_size_than_in_the_metadata_is_refused(home: Home, size: int) -> None:
    home.fails(IncompleteDownloadError, f"40000 bytes.*file:size is {size}", size=size)
    assert len(home.server.requests) == 1, "asking again would not help"


@pytest.mark.parametrize(
    ("prefix", "function", "length"),
    [
        ("1220", "sha256", 32),
        ("1114", "sha1", 20),
        ("d50110", "md5", 16),
        ("1340", "sha512", 64),
        ("1620", "sha3_256", 32),
        ("c0e40240", "blake2b", 64),
        ("1208", "sha256", 8),
    ],
)
def test_the_checksum_of_the_metadata_is_compared(
    home: Home, prefix: str, function: str, length: int
) -> None:
    digest = hashlib.new(function, BODY).digest()[:length].hex()
    received = home.download(checksum=prefix + digest)
    assert (received.verified, received.checksum) == (True, prefix + digest)
    wrong = prefix + digest[:-1] + ("0" if digest[-1] != "0" else "1")
    error = home.fails(ChecksumMismatchError, f"the {function} of the file is", checksum=wrong)
    assert digest in str(error)
    assert "verify=False skips this check" in str(error)


def test_without_verification_a_wrong_checksum_is_no_error(home: Home) -> None:
    received = home.download(checksum="1220" + "00" * 32, verify=False)
    assert received.checksum is None
    home.assert_there()


# -- the identity of a URL -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "signed_again"),
    [
        ("st=1&se=2&sp=r&sv=2024&sr=b&sig=a%3D", "st=3&se=4&sp=r&sv=2024&sr=b&sig=b%3D"),
        ("saoid=1&scid=1&sig=a", "suoid=2&scid=2&sig=b"),
        ("X-Amz-Date=1&X-Amz-Signature=a&v=2", "X-Amz-Date=2&X-Amz-Signature=b&v=2"),
        ("X-Goog-Expires=1&X-Goog-Signature=a", "X-Goog-Expires=9&X-Goog-Signature=b"),
        ("Expires=1&Signature=a&Key-Pair-Id=K", "Expires=2&Signature=b&Key-Pair-Id=K"),
        ("token=a&ref=main", "token=b&ref=main"),
        ("ref=main&access_token=a", "ref=main&access_token=b"),
    ],
)
def test_another_signature_of_a_url_names_the_same_file(query: str, signed_again: str) -> None:
    url = "https://h/a.tif?"
    assert url_digest(url + query) == url_digest(url + signed_again)
    assert url_digest(url + query + "&version=1") != url_digest(url + query + "&version=2")


@pytest.mark.parametrize("name", ["se", "sp", "Expires", "policy", "v", "ref", "tokens"])
def test_parameters_that_sign_nothing_name_the_file(name: str) -> None:
    assert url_digest(f"https://h/a?{name}=1") != url_digest(f"https://h/a?{name}=2")
