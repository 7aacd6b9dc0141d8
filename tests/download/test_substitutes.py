"""Bodies that a server sends in place of a file are refused, with the reason."""

from __future__ import annotations

from typing import Any

import fault_server as faulty
import pytest
from fault_server import ServedFile
from home import Home
from sample_items import BODY, SHA256, TOKEN

from stac_gitlab.download.source import Source
from stac_gitlab.download.substitutes import other_format
from stac_gitlab.errors import (
    AuthenticationError,
    InvalidResponseError,
    LFSPointerError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.testing import Answer, Fault, RecordedRequest


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


def test_any_other_html_page_is_not_taken_for_the_file(home: Home) -> None:
    page = b"\n\n<!-- maintenance --><HTML><body>Back soon</body></HTML>"
    home.server.inject(Fault(body=page, times=None))
    home.fails(InvalidResponseError, "an HTML page came in place of the file 'lakes.bin'")


@pytest.mark.parametrize(
    "how", [{"key": "report.html"}, {"key": "R.HTM"}, {"media_type": "text/html"}]
)
def test_an_html_file_may_be_an_html_page(home: Home, how: dict[str, Any]) -> None:
    home.file.content = faulty.SIGN_IN_PAGE
    home.download(**how)
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
        {"key": "report.pdf"},
        {"key": "points", "media_type": "application/vnd.laszip+copc"},
        {"key": "forecast.grib2"},
        {"key": "lakes.fgb"},
        {"key": "lakes", "media_type": "application/geopackage+sqlite3"},
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


def test_a_token_in_a_message_is_redacted(home: Home) -> None:
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
    home.download(**how)
    home.assert_there(MESSAGES["JSON"])


def test_the_name_of_a_host_is_not_that_of_a_file() -> None:
    """The domain of New Caledonia is also the suffix of netCDF."""
    for url in ("https://files.example.nc", "https://files.example.nc?id=5"):
        assert other_format(Source(url, "data"), b"anything", "text/plain") == ""


def test_a_file_of_another_format_is_kept_with_a_warning(home: Home) -> None:
    home.file.content = b"\x89PNG\r\n\x1a\n" + bytes(100)
    with pytest.warns(UnverifiedDownloadWarning, match="should be a TIFF file, but it is a PNG"):
        home.download(key="B04.tif")
    home.assert_there(home.file.content)


@pytest.mark.parametrize(
    "start",
    [b"II*\0", b"MM\0*", b"II+\0", b"unknown", b"{\xff\xfe\xfd is no text", b"<\0\1\2\3\4\5\6\7"],
)
def test_a_file_of_the_stated_format_or_an_unknown_one_is_kept(home: Home, start: bytes) -> None:
    home.file.content = start + bytes(100)
    home.download(key="B04.tif")
    home.assert_there(home.file.content)


@pytest.mark.parametrize(
    ("sent_type", "content", "how", "problem"),
    [
        ("text/plain; charset=utf-8", b"Too busy.\n", {"key": "a.tif"}, "sent 'text/plain'"),
        ("application/json", b"{}", {"key": "a.zip"}, "sent 'application/json'"),
        ("application/json", b'"busy"', {"key": "a.nc"}, "sent 'application/json'"),
        ("application/problem+json", MESSAGES["JSON"], {"media_type": "text/csv"}, "problem.json"),
        ("text/xml", MESSAGES["XML"], {"media_type": "application/vnd.zarr"}, "sent 'text/xml'"),
        ("application/octet-stream", b"", {"key": "a.tif"}, "but it is empty"),
        ("text/html", b"", {"media_type": "text/csv"}, "sent 'text/html'"),
    ],
)
def test_what_may_be_a_message_is_kept_with_a_warning(
    home: Home, sent_type: str, content: bytes, how: dict[str, Any], problem: str
) -> None:
    home.file.content, home.file.headers = content, {"content-type": sent_type}
    with pytest.warns(UnverifiedDownloadWarning, match=f"should be .*{problem}"):
        home.download(**how)
    home.assert_there(content)


@pytest.mark.parametrize(
    ("sent_type", "content", "how"),
    [
        ("text/plain", b"II*\0 is a TIFF", {"key": "a.tif"}),
        ("text/plain", b"\0\1\2\3 is no text", {"key": "a.tif"}),
        ("text/plain", b"a,b\n1,2\n", {"media_type": "text/csv"}),
        ("text/plain", b"~VERSION INFORMATION\n", {"key": "well.las"}),
        ("application/json", MESSAGES["JSON"], {"media_type": "application/geo+json"}),
        ("application/json", MESSAGES["JSON"], {"media_type": "text/plain"}),
        ("application/json", MESSAGES["JSON"], {"key": "a.json", "media_type": "text/csv"}),
        ("application/json", MESSAGES["JSON"], {}),
        ("application/octet-stream", b"", {"key": "a.tif", "size": 0}),
        ("application/octet-stream", b"", {"media_type": "text/csv"}),
    ],
)
def test_what_agrees_with_the_media_type_is_kept(
    home: Home, sent_type: str, content: bytes, how: dict[str, Any]
) -> None:
    home.file.content, home.file.headers = content, {"content-type": sent_type}
    home.download(**how)
    home.assert_there(content)


@pytest.mark.parametrize("content", [b"<kml>x</kml>", b"<!-- html --> text", b"x <html>"])
def test_other_text_with_angle_brackets_is_content(home: Home, content: bytes) -> None:
    home.file.content = content
    home.download()
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
def test_an_lfs_pointer_of_gitlab_is_replaced_by_its_file(
    home: Home, path: str, size: int | None
) -> None:
    content = ServedFile(BODY)

    def serve(request: RecordedRequest) -> Answer | bytes:
        return content(request) if request.query.get("lfs") == "true" else faulty.LFS_POINTER

    home.server.route(path.partition("?")[0], serve)
    home.download(path, size=size, checksum=None if size is None else SHA256)
    home.assert_there()
    first, second = home.server.requests
    assert first.query["ref"] == second.query["ref"]
    assert second.query["lfs"] == "true"


def test_an_lfs_pointer_in_place_of_its_file_is_an_error(home: Home) -> None:
    path = "/api/v4/projects/7/repository/files/lakes.bin/raw"
    home.server.route(path, faulty.LFS_POINTER)
    home.fails(LFSPointerError, "Git LFS pointer", path=f"{path}?ref=main")
    assert len(home.server.requests) == 2


def test_a_large_file_that_starts_like_a_pointer_is_content(home: Home) -> None:
    home.file.content = faulty.LFS_POINTER + b"x" * 1024
    home.download()
    home.assert_there(home.file.content)


def test_a_dvc_pointer_is_not_taken_for_the_file(home: Home) -> None:
    home.file.content = faulty.DVC_POINTER
    home.fails(LFSPointerError, "a DVC pointer in place of the file. Run 'dvc pull'")


@pytest.mark.parametrize("key", ["data/lakes.csv.dvc", "data.dvc", "dvc.lock"])
def test_a_dvc_file_may_be_a_dvc_file(home: Home, key: str) -> None:
    home.file.content = faulty.DVC_POINTER
    home.download(key=key)
    home.assert_there(faulty.DVC_POINTER)
