"""What came is the file that was promised, or it is refused with a word on what it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import fault_server as faulty
import pytest
from fault_server import ServedFile
from home import Home
from sample_items import BODY, SHA256, TOKEN

from stac_gitlab.auth import Credentials
from stac_gitlab.download.source import Source, url_digest
from stac_gitlab.download.transfer import download_file
from stac_gitlab.errors import (
    AuthenticationError,
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    InvalidResponseError,
    LFSPointerError,
    NetworkError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest
from tests.raw_server import RawServer

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
def test_a_body_that_ends_nobody_knows_where_is_no_file(home: Home, head: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n5\r\nlakes\r\n0\r\n\r\nmore"
    with RawServer(lambda server, connection: server.send(connection, [answer])) as server:
        home.fails(
            (DownloadError, InvalidResponseError, NetworkError),
            "where the file ends|Content-Length",
            path=f"{server.url}/lakes.bin",
        )


@pytest.mark.parametrize("encoding", ["compress", "x-foo", "gzip, x-foo"])
def test_a_body_that_nobody_can_decode_is_not_saved(
    encoding: str, server: LoopbackServer, tmp_path: Path
) -> None:
    server.route("/x", b"coded", headers={"Content-Encoding": encoding})
    with (
        GitLabSession(Credentials()) as session,
        pytest.raises(DownloadError, match="in an encoding that cannot be decoded"),
    ):
        download_file(session, Source(f"{server.url}/x", "x"), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_encoding_that_repeats_the_token_is_not_shown(
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
def test_another_size_than_the_metadata_promise_is_refused(home: Home, size: int) -> None:
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
    received = home.bring(checksum=prefix + digest)
    assert (received.verified, received.checksum) == (True, prefix + digest)
    wrong = prefix + digest[:-1] + ("0" if digest[-1] != "0" else "1")
    error = home.fails(ChecksumMismatchError, f"the {function} of the file is", checksum=wrong)
    assert digest in str(error)
    assert "verify=False skips this check" in str(error)


def test_without_verification_a_wrong_checksum_is_no_error(home: Home) -> None:
    received = home.bring(checksum="1220" + "00" * 32, verify=False)
    assert received.checksum is None
    home.assert_there()


# -- the identity of a URL -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "signed_again"),
    [
        ("st=1&se=2&sp=r&sv=2024&sr=b&sig=a%3D", "st=3&se=4&sp=r&sv=2024&sr=b&sig=b%3D"),
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


# -- something else in place of the file -----------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"chunked": True}, {"trickle": (1, 0.0)}])
@pytest.mark.parametrize("size", [None, 40_000])
@pytest.mark.parametrize("media_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_sign_in_page_is_not_taken_for_the_file(
    home: Home, how: dict[str, Any], size: int | None, media_type: str
) -> None:
    page = Answer(200, (("content-type", media_type),), faulty.SIGN_IN_PAGE)
    home.server.inject(Fault(answer=lambda _: page, times=None, **how))
    # Of a page that comes byte by byte it is soon known that it is one, but not always which.
    errors = (
        (AuthenticationError, InvalidResponseError) if "trickle" in how else AuthenticationError
    )
    error = home.fails(errors, "(an HTML|a sign-in) page came in place of", size=size)
    assert "'lakes.bin'" in str(error)
    assert len(home.server.requests) == 1


def test_any_other_page_is_not_taken_for_the_file_either(home: Home) -> None:
    page = b"\n\n<!-- maintenance --><HTML><body>Back soon</body></HTML>"
    home.server.inject(Fault(body=page, times=None))
    home.fails(InvalidResponseError, "an HTML page came in place of the file 'lakes.bin'")


@pytest.mark.parametrize(
    "how", [{"key": "report.html"}, {"key": "R.HTM"}, {"media_type": "text/html"}]
)
def test_a_page_is_taken_where_a_page_was_asked_for(home: Home, how: dict[str, Any]) -> None:
    home.file.content = faulty.SIGN_IN_PAGE
    home.bring(**how)
    home.assert_there(faulty.SIGN_IN_PAGE)


MESSAGES = {
    "JSON": b'{"message": "no such scene"}',
    "XML": b'<?xml version="1.0"?><Error><Code>no such scene</Code></Error>',
    "JSON with a byte order mark": b'\xef\xbb\xbf\r\n [{"error": "no such scene"}]',
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize(
    "how",
    [
        {"key": "B04.tif"},
        {"key": "B04", "media_type": "image/tiff; application=geotiff; profile=cloud-optimized"},
        {"key": "B04", "media_type": "application/octet-stream", "path": "/B04.TIFF"},
        {"key": "product", "media_type": "application/zip"},
        {"key": "sst.nc"},
        {"key": "sst", "media_type": "application/x-netcdf"},
        {"key": "table.parquet"},
        {"key": "levels.csv.gz"},
    ],
)
def test_a_message_is_not_taken_for_a_binary_file(
    home: Home, how: dict[str, Any], message: bytes
) -> None:
    home.file.content = message
    home.server.route("/B04.TIFF", home.file)
    error = home.fails(InvalidResponseError, "the server sent a message in place of", **how)
    assert "no such scene" in str(error)
    assert len(home.server.requests) == 1


def test_a_message_that_repeats_the_token_is_shown_without_it(home: Home) -> None:
    home.file.content = b'{"detail": "bad token %s"}' % TOKEN.encode()
    assert "bad token" in str(home.fails(InvalidResponseError, "message", key="a.tif"))


@pytest.mark.parametrize(
    "how",
    [
        {"key": "scene.json"},
        {"key": "scene"},
        {"key": "a.tif", "media_type": "application/json"},
        {"key": "metadata", "media_type": "image/tiff", "path": "/scene.json"},
    ],
)
def test_a_text_file_may_be_json(home: Home, how: dict[str, Any]) -> None:
    home.file.content = MESSAGES["JSON"]
    home.server.route("/scene.json", home.file)
    home.bring(**how)
    home.assert_there(MESSAGES["JSON"])


def test_a_file_of_another_format_is_kept_with_a_warning(home: Home) -> None:
    home.file.content = b"\x89PNG\r\n\x1a\n" + bytes(100)
    with pytest.warns(UnverifiedDownloadWarning, match="should be a TIFF file, but it is a PNG"):
        home.bring(key="B04.tif")
    home.assert_there(home.file.content)


@pytest.mark.parametrize(
    "start",
    [b"II*\0", b"MM\0*", b"II+\0", b"unknown", b"{\xff\xfe\xfd is no text", b"<\0\1\2\3\4\5\6\7"],
)
def test_a_file_of_the_stated_format_or_an_unknown_one_is_kept(home: Home, start: bytes) -> None:
    home.file.content = start + bytes(100)
    home.bring(key="B04.tif")
    home.assert_there(home.file.content)


@pytest.mark.parametrize("content", [b"<kml>x</kml>", b"<!-- html --> text", b"x <html>"])
def test_other_angle_brackets_are_content(home: Home, content: bytes) -> None:
    home.file.content = content
    home.bring()
    home.assert_there(content)


@pytest.mark.parametrize("size", [None, 12_345])
@pytest.mark.parametrize(
    "pointer", [faulty.LFS_POINTER, faulty.LFS_POINTER.replace(b"git-lfs.github", b"hawser.github")]
)
def test_an_lfs_pointer_is_not_taken_for_the_file(
    home: Home, pointer: bytes, size: int | None
) -> None:
    home.file.content = pointer
    error = home.fails(
        LFSPointerError, "the server sent a Git LFS pointer in place of the file", size=size
    )
    assert "git lfs pull" in str(error)


@pytest.mark.parametrize("size", [None, len(BODY)])
@pytest.mark.parametrize(
    "path",
    [
        "/api/v4/projects/7/repository/files/lakes.bin/raw?ref=main",
        "/api/v4/projects/7/repository/files/lakes.bin/raw?lfs=false&ref=main",
        "/gitlab/api/v4/projects/7/repository/files/lakes.bin/raw?ref=a%2Bb",
        "/api/download/group/lakes/repository/lakes.bin?ref=main",
    ],
)
def test_a_pointer_of_gitlab_is_asked_for_again_as_content(
    home: Home, path: str, size: int | None
) -> None:
    content = ServedFile(BODY)

    def serve(request: RecordedRequest) -> Answer | bytes:
        return content(request) if request.query.get("lfs") == "true" else faulty.LFS_POINTER

    home.server.route(path.partition("?")[0], serve)
    home.bring(path, size=size, checksum=None if size is None else SHA256)
    home.assert_there()
    first, second = home.server.requests
    assert first.query["ref"] == second.query["ref"]
    assert second.query["lfs"] == "true"


def test_a_pointer_that_comes_as_content_too_is_an_error(home: Home) -> None:
    path = "/api/v4/projects/7/repository/files/lakes.bin/raw"
    home.server.route(path, faulty.LFS_POINTER)
    home.fails(LFSPointerError, "Git LFS pointer", path=f"{path}?ref=main")
    assert len(home.server.requests) == 2


def test_a_file_that_only_begins_like_a_pointer_is_content(home: Home) -> None:
    home.file.content = faulty.LFS_POINTER + b"x" * 1024
    home.bring()
    home.assert_there(home.file.content)


def test_a_dvc_pointer_is_not_taken_for_the_file(home: Home) -> None:
    home.file.content = faulty.DVC_POINTER
    home.fails(LFSPointerError, "a DVC pointer in place of the file. Run 'dvc pull'")


@pytest.mark.parametrize("key", ["data/lakes.csv.dvc", "data.dvc", "dvc.lock"])
def test_a_dvc_file_that_was_asked_for_is_taken(home: Home, key: str) -> None:
    home.file.content = faulty.DVC_POINTER
    home.bring(key=key)
    home.assert_there(faulty.DVC_POINTER)
