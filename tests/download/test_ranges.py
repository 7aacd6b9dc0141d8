"""The range and the version of partial responses, whatever a server writes there."""

from __future__ import annotations

import hashlib

import fault_server as faulty
import pytest
import requests
from home import Home
from hypothesis import example, given
from hypothesis import strategies as st
from sample_items import BODY, CHANGED, SHA256

from stac_gitlab.download.content_version import ByteRange, ContentVersion
from stac_gitlab.errors import ChecksumMismatchError
from tests.raw_server import RawServer


def part(content_range: str, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = 206
    response.headers["Content-Range"] = content_range
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


def starts_at(content_range: str, offset: int, total: int | None) -> bool:
    response = part(content_range)
    found = ByteRange.of(response)
    return (
        found is not None and found.start == offset and ContentVersion(size=total).matches(response)
    )


@given(
    st.text() | st.from_regex(r"bytes \d+-\d+/(\d+|\*)"), st.integers(0), st.none() | st.integers(0)
)
@example("bytes 5-9/10", 5, 10)
@example("bytes \u0665-9/10", 5, 10)
@example("bytes 00000000000000000000000000005-9/10", 5, 10)
def test_any_content_range_is_read_without_a_crash(
    text: str, offset: int, total: int | None
) -> None:
    if starts_at(text, offset, total):
        unit, _, rest = text.strip().partition(" ")
        assert unit.lower() == "bytes"
        assert int(rest.partition("-")[0]) == offset


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_part_fits_where_start_and_length_do(first: int, more: int, wrong: int) -> None:
    last, total = first + more, first + more + 1
    assert starts_at(f"bytes {first}-{last}/{total}", first, total)
    assert starts_at(f"Bytes {first}-{last}/*", first, total)
    assert starts_at(f"bytes {first}-{last}/{total}", first, None)
    if wrong != first:
        assert not starts_at(f"bytes {first}-{last}/{total}", wrong, total)
    if wrong != total:
        assert not starts_at(f"bytes {first}-{last}/{total}", first, wrong)


@pytest.mark.parametrize(
    "response",
    [
        part("bytes 5-4/10"),
        part("bytes 0-9/10", Content_Length="9"),
        part("bytes 0-9/10", Content_Length="10", Content_Encoding="gzip"),
        part("bytes */10"),
        part(""),
    ],
    ids=["backwards", "of another length", "encoded", "unsatisfied", "unsaid"],
)
def test_what_is_no_plain_part_is_none(response: requests.Response) -> None:
    assert ByteRange.of(response) is None


def test_a_whole_answer_is_no_part() -> None:
    response = part("bytes 0-9/10")
    response.status_code = 200
    assert ByteRange.of(response) is None


FRIDAY, SATURDAY = "Fri, 20 Nov 2026 11:51:58 GMT", "Sat, 21 Nov 2026 11:51:58 GMT"
ONE = {"ETag": '"one"'}
WEAK = {"ETag": 'W/"one"'}


@pytest.mark.parametrize(
    ("whole", "partial", "matches"),
    [
        (ONE, ONE, True),
        (ONE, {"ETag": '"two"'}, False),
        (ONE, {}, False),
        (ONE, {"Last-Modified": FRIDAY}, False),
        ({**ONE, "Last-Modified": FRIDAY}, ONE, True),
        ({**ONE, "Last-Modified": FRIDAY}, {**ONE, "Last-Modified": SATURDAY}, True),
        ({"Last-Modified": FRIDAY}, {"Last-Modified": FRIDAY}, True),
        ({"Last-Modified": FRIDAY}, {"Last-Modified": SATURDAY}, False),
        ({"Last-Modified": FRIDAY}, {}, False),
        ({**WEAK, "Last-Modified": FRIDAY}, {**WEAK, "Last-Modified": FRIDAY}, True),
        ({**WEAK, "Last-Modified": FRIDAY}, WEAK, False),
        ({**WEAK, "Last-Modified": FRIDAY}, {"Last-Modified": FRIDAY}, False),
        (WEAK, WEAK, True),
        ({}, {"ETag": '"two"'}, True),
    ],
)
def test_a_part_has_to_repeat_the_validators_of_the_whole(
    whole: dict[str, str], partial: dict[str, str], matches: bool
) -> None:
    version = ContentVersion.of(part("", **whole), size=10)
    assert version.matches(part("bytes 0-9/10", **partial)) is matches


@pytest.mark.parametrize(
    ("headers", "conditions"),
    [
        (ONE, {"If-Range": '"one"'}),
        ({**ONE, "Last-Modified": FRIDAY}, {"If-Range": '"one"'}),
        ({"Last-Modified": FRIDAY}, {"If-Range": FRIDAY}),
        ({**WEAK, "Last-Modified": FRIDAY}, {"If-Unmodified-Since": FRIDAY}),
        ({**ONE, "Content-Encoding": "gzip"}, None),
        (WEAK, None),
        ({"Last-Modified": FRIDAY, "Date": FRIDAY}, None),
        ({}, None),
    ],
)
def test_a_part_is_requested_on_the_condition_that_its_validators_allow(
    headers: dict[str, str], conditions: dict[str, str] | None
) -> None:
    version = ContentVersion.of(part("", **headers), size=10)
    assert version.has_strong_validator is (conditions is not None)
    if conditions is not None:
        assert version.range_conditions() == conditions


# -- validators and checksums of a server ----------------------------------------------------------


@pytest.mark.parametrize("etag", ['"on\xe9\x80"', '"one\t"'])
def test_an_etag_that_cannot_be_a_header_is_not_sent_back(home: Home, etag: str) -> None:
    beginning = f"HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: 9\r\n\r\nlake"
    whole = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nlakes.bin"
    answers = iter([beginning.encode("latin-1"), whole.encode()])
    with RawServer(lambda s, c: s.send(c, [next(answers)])) as server:
        home.download(f"{server.url}/lakes.bin")
        assert b"If-Range" not in server.requests[1]
    home.assert_there(b"lakes.bin")


@pytest.mark.parametrize(("seconds", "is_proof"), [("41", False), ("42", True)])
def test_a_date_in_the_second_of_the_response_proves_nothing(
    seconds: str, is_proof: bool, home: Home
) -> None:
    day = "Fri, 20 Nov 2026 11:51:"
    dates = f"Last-Modified: {day}41 GMT\r\nDate: {day}{seconds} GMT\r\n"
    head = f"HTTP/1.1 200 OK\r\n{dates}Content-Length: 9\r\n\r\n"
    answers = iter([f"{head}lake", f"{head}lakes.bin"])
    with RawServer(lambda s, c: s.send(c, [next(answers).encode()])) as server:
        received = home.download(f"{server.url}/lakes.bin")
        assert (b"If-Range" in server.requests[1]) is is_proof
        assert received.validator == (f"{day}41 GMT" if is_proof else None)
    home.assert_there(b"lakes.bin")


def gitlab_headers(content: bytes, size: int | None = None) -> dict[str, str]:
    return {
        "x-gitlab-content-sha256": hashlib.sha256(content).hexdigest(),
        "x-gitlab-size": str(len(content) if size is None else size),
    }


def test_the_hash_in_gitlabs_headers_is_compared(home: Home) -> None:
    home.file.headers = gitlab_headers(BODY)
    assert home.download().checksum == SHA256
    home.file.headers = gitlab_headers(CHANGED)
    home.fails(ChecksumMismatchError, "sha256")


def test_the_hash_in_gitlabs_headers_is_ignored_if_it_is_that_of_a_pointer(
    home: Home,
) -> None:
    home.file.headers = gitlab_headers(faulty.LFS_POINTER)
    assert home.download().checksum is None
    home.file.headers = {"x-gitlab-content-sha256": hashlib.sha256(b"pointer").hexdigest()}
    home.download()
    home.assert_there()


@pytest.mark.parametrize("digest", ["", "none", "00", "zz" * 32])
def test_an_invalid_hash_in_gitlabs_headers_is_ignored(home: Home, digest: str) -> None:
    home.file.headers = {"x-gitlab-content-sha256": digest, "x-gitlab-size": "40000"}
    assert home.download().checksum is None


def test_the_checksum_of_the_metadata_is_preferred_to_the_one_of_the_server(home: Home) -> None:
    home.file.headers = gitlab_headers(CHANGED)
    assert home.download(checksum=SHA256).checksum == SHA256
