"""One file from a faulty server: the right bytes, or the old file unchanged."""

from __future__ import annotations

import errno
import gzip
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import fault_server as faulty
import pytest
import requests
from home import Home
from sample_items import BODY, CHANGED, SHA256, TOKEN, multihash_of

from stac_gitlab.auth import Credentials
from stac_gitlab.download.checked_file import TransferResult
from stac_gitlab.download.source import Source
from stac_gitlab.download.transfer import NotModified, copy_file, download_file
from stac_gitlab.errors import (
    AuthenticationError,
    ChecksumMismatchError,
    DownloadError,
    HTTPStatusError,
    IncompleteDownloadError,
    InvalidResponseError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    STACGitLabError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files import checksums
from stac_gitlab.files.checksums import Checksum
from stac_gitlab.files.disk_space import SpaceClaim
from stac_gitlab.http.deadline import Cancelled, Deadline, enforcing
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest
from tests.conftest import Clock
from tests.raw_server import RawServer

# -- when nothing goes wrong ----------------------------------------------------------------------


def test_a_file_is_downloaded_with_one_request(home: Home) -> None:
    received = home.download()
    home.assert_there()
    assert received == TransferResult(
        len(BODY), None, verified=True, resumed=False, validator='"one"'
    )
    assert home.ranges == [None]


def test_a_download_requests_the_identity_encoding(home: Home) -> None:
    home.download()
    assert home.server.requests[0].headers["Accept-Encoding"] == "identity"


def test_an_empty_file_is_downloaded(home: Home) -> None:
    home.file.content = b""
    assert home.download(size=0).verified
    home.assert_there(b"")


def test_the_old_file_is_replaced(home: Home) -> None:
    home.target.write_bytes(b"old and longer than the new one" * 5000)
    home.download()
    home.assert_there()


def test_progress_is_reported_up_to_the_end(home: Home) -> None:
    home.download()
    counts = [count for count, _ in home.progress]
    assert counts == sorted(counts)
    assert home.progress[-1] == (len(BODY), len(BODY))


def test_progress_of_a_body_without_length_has_no_total(home: Home) -> None:
    home.server.inject(Fault(chunked=True))
    home.download()
    assert home.progress[-1] == (len(BODY), None)


def test_a_chunked_body_is_complete_with_its_last_chunk(home: Home) -> None:
    home.server.inject(Fault(chunked=True))
    assert home.download().verified
    home.assert_there()


def test_chunk_extensions_and_trailers_are_not_content(home: Home) -> None:
    wire = b"5;name=value\r\nlakes\r\n0\r\nX-Trailer: 1\r\n\r\n"
    home.server.inject(faulty.in_raw_chunks(wire))
    assert home.download().verified
    home.assert_there(b"lakes")


# -- bodies that break off ------------------------------------------------------------------------

BREAKS = {
    "cut before the first byte": faulty.cut(0),
    "cut after one byte": faulty.cut(1),
    "cut in the middle": faulty.cut(20_000),
    "cut before the last byte": faulty.cut(39_999),
    "reset in the middle": Fault(cut_after=20_000, reset=True),
    "reset instead of an answer": Fault(reset=True),
    "closed without an answer": Fault(drop=True),
    "chunks cut in the middle": Fault(cut_after=20_000, chunked=True),
    "chunks without the last one": Fault(cut_after=40_000, chunked=True),
    "more announced than comes": faulty.announcing(50_000),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
def test_a_broken_body_is_resumed_until_it_is_complete(home: Home, fault: Fault) -> None:
    home.server.inject(fault)
    received = home.download(size=len(BODY) if fault.headers == {} else None, checksum=SHA256)
    home.assert_there()
    assert received.verified
    assert received.checksum == SHA256


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
def test_a_body_that_always_breaks_leaves_the_old_file(home: Home, fault: Fault) -> None:
    home.file.keeps_ranges = False
    home.server.inject(Fault(**{**vars(fault), "times": None}))
    home.fails((IncompleteDownloadError, NetworkError), r"lakes\.bin")
    assert len(home.server.requests) <= 4


def test_only_the_missing_bytes_are_requested_on_the_condition_of_the_etag(home: Home) -> None:
    home.server.inject(faulty.cut(12_345))
    assert home.download().resumed
    home.assert_there()
    assert home.ranges == [None, "bytes=12345-"]
    assert home.server.requests[1].headers["If-Range"] == '"one"'
    assert home.server.requests[1].headers["Accept-Encoding"] == "identity"


def test_without_an_etag_the_last_modified_date_is_the_condition(home: Home) -> None:
    date = "Fri, 20 Nov 2020 10:00:00 GMT"
    home.file.etag, home.file.modified = None, date
    home.server.inject(faulty.cut(100))
    assert home.download().resumed
    assert home.server.requests[1].headers["If-Range"] == date


def test_with_a_weak_etag_the_download_starts_over(home: Home) -> None:
    home.file.etag = 'W/"one"'
    home.server.inject(faulty.cut(100))
    assert not home.download().resumed
    assert home.ranges == [None, None]
    home.assert_there()


def test_without_a_validator_the_download_starts_over(home: Home) -> None:
    home.file.etag = None
    home.server.inject(faulty.cut(100))
    assert not home.download().resumed
    assert home.ranges == [None, None]
    home.assert_there()


def test_with_a_checksum_a_body_without_a_validator_is_resumed(home: Home) -> None:
    home.file.etag = None
    home.server.inject(faulty.cut(100))
    assert home.download(checksum=SHA256).resumed
    assert home.ranges == [None, "bytes=100-"]
    assert "If-Range" not in home.server.requests[1].headers
    home.assert_there()


def test_after_a_mismatch_a_checksum_no_longer_allows_to_resume(home: Home) -> None:
    garbled = faulty.FAULTS_TO_SURVIVE["chunks garbled"]
    home.file.etag = None
    home.server.inject(replace(garbled, times=1))
    home.server.inject(replace(garbled, times=1, after=1))
    assert not home.download(checksum=SHA256).resumed
    assert home.ranges == [None, "bytes=5-", None, None]
    home.assert_there()


def test_a_server_that_ignores_ranges_sends_the_file_from_the_start(home: Home) -> None:
    home.file.keeps_ranges = False
    home.server.inject(faulty.cut(100))
    received = home.download()
    home.assert_there()
    assert not received.resumed
    assert home.ranges == [None, "bytes=100-"]


@pytest.mark.parametrize("shift", [-1, 1, -100, 5000])
def test_another_range_than_the_requested_one_is_not_appended(home: Home, shift: int) -> None:
    home.file.span = lambda asked: range(asked.start + shift, asked.stop)
    home.server.inject(faulty.cut(100))
    received = home.download()
    home.assert_there()
    assert not received.resumed
    assert home.ranges == [None, "bytes=100-", None]


@pytest.mark.parametrize(
    "content_range", [None, "", "bytes */40000", "bytes 100-39999", "items 100-39999/40000", "é"]
)
def test_a_part_without_a_valid_content_range_is_not_appended(
    home: Home, content_range: str | None
) -> None:
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(headers={"content-range": content_range}))
    home.download()
    home.assert_there()
    assert home.ranges == [None, "bytes=100-", None]


def test_a_part_of_a_file_of_another_size_is_not_appended(home: Home) -> None:
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(headers={"content-range": "bytes 100-39999/50000"}))
    home.download()
    home.assert_there()
    assert home.ranges[-1] is None


def test_a_part_that_is_longer_than_its_range_does_not_extend_the_file(home: Home) -> None:
    surplus = BODY[100:] + b"what has no place here"
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(body=surplus))
    home.target.write_bytes(b"old")
    try:
        home.download()
    except DownloadError:
        home.assert_there(b"old")
    else:
        home.assert_there()


def test_a_server_that_sends_small_parts_is_asked_until_the_file_is_complete(home: Home) -> None:
    home.file.cap = 9_000
    home.server.inject(faulty.cut(1_000))
    assert home.download().resumed
    home.assert_there()
    assert home.ranges[1:] == [f"bytes={n}-" for n in range(1_000, 40_000, 9_000)]


def test_the_size_in_a_content_range_counts_if_the_first_response_has_none(home: Home) -> None:
    home.file.cap = 9_000
    home.server.inject(Fault(chunked=True, cut_after=1_000))
    home.download()
    home.assert_there()


def test_a_range_after_the_end_of_the_file_starts_the_download_over(home: Home) -> None:
    def shrink(request: RecordedRequest) -> Answer:
        home.file.content = BODY[:50]
        return Answer(416, (("content-range", "bytes */50"),), b"")

    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(answer=shrink))
    assert not home.download().resumed
    home.assert_there(BODY[:50])


def test_changed_content_starts_the_download_over(home: Home) -> None:
    def change(request: RecordedRequest) -> Answer:
        home.file.content, home.file.etag = CHANGED, '"two"'
        return home.file(request)

    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(answer=change))
    received = home.download()
    home.assert_there(CHANGED)
    assert not received.resumed
    assert received.validator == '"two"'


@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_changed_content_is_not_appended_if_the_server_ignores_the_condition(
    home: Home, validator: str
) -> None:
    dates = "Fri, 20 Nov 2020 10:00:00 GMT", "Fri, 20 Nov 2020 10:30:00 GMT"
    versions = ('"one"', '"two"') if validator == "etag" else dates
    home.file.etag = None
    setattr(home.file, validator, versions[0])

    def change(request: RecordedRequest) -> Answer:
        home.file.content, home.file.keeps_if_range = CHANGED, False
        setattr(home.file, validator, versions[1])
        return home.file(request)

    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(answer=change))
    home.download()
    home.assert_there(CHANGED)


def test_a_part_without_the_etag_of_the_whole_is_not_appended(home: Home) -> None:
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(headers={"etag": None}))
    assert not home.download().resumed
    home.assert_there()
    assert home.ranges == [None, "bytes=100-", None]


def test_a_part_without_the_date_of_the_whole_is_not_appended(home: Home) -> None:
    home.file.etag, home.file.modified = None, "Fri, 20 Nov 2020 10:00:00 GMT"
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(headers={"last-modified": None}))
    assert not home.download().resumed
    home.assert_there()


def test_with_a_weak_etag_and_a_date_the_download_is_resumed(home: Home) -> None:
    home.file.etag, home.file.modified = 'W/"one"', "Fri, 20 Nov 2020 10:00:00 GMT"
    home.server.inject(faulty.cut(100))
    assert home.download().resumed
    home.assert_there()
    headers = home.server.requests[1].headers
    assert headers["If-Unmodified-Since"] == home.file.modified
    assert "If-Range" not in headers


def test_content_that_fails_the_condition_of_its_date_starts_the_download_over(
    home: Home,
) -> None:
    def change(request: RecordedRequest) -> Answer:
        home.file.content, home.file.etag = CHANGED, 'W/"two"'
        return Answer(412)

    home.file.etag, home.file.modified = 'W/"one"', "Fri, 20 Nov 2020 10:00:00 GMT"
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(answer=change))
    assert not home.download().resumed
    home.assert_there(CHANGED)


def test_a_third_run_resumes_a_body_that_broke_in_two_runs(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stac_gitlab.download.content_version.KEEP_FROM", 1)
    for _ in range(2):
        home.server.inject(faulty.cut(10_000))
        home.server.inject(Fault(status=404))
        with pytest.raises(NotFoundError):
            home.download(continuing=True, checksum=SHA256)
    received = home.download(continuing=True, checksum=SHA256)
    home.assert_there()
    assert received.resumed
    assert home.ranges == [None, "bytes=10000-", "bytes=10000-", "bytes=20000-", "bytes=20000-"]


# -- how often to try again -----------------------------------------------------------------------


def test_the_count_of_attempts_starts_over_when_bytes_arrive(home: Home) -> None:
    home.server.inject(faulty.cut(1_000, times=30))
    assert home.download(max_attempts=2).resumed
    home.assert_there()
    assert len(home.server.requests) == 31


def test_a_body_that_is_always_cut_at_the_same_byte_is_an_error(home: Home) -> None:
    home.file.keeps_ranges = False
    home.server.inject(faulty.cut(20_000, times=None))
    home.fails(IncompleteDownloadError, r"ended after 20000 of 40000 bytes", max_attempts=3)
    assert len(home.server.requests) == 4, "the first one brought something, three in vain"


def test_bytes_that_arrive_again_are_no_progress(home: Home) -> None:
    home.file.etag = None
    for _ in range(10):
        home.server.inject(faulty.cut(20_000))
        home.server.inject(faulty.cut(10_000))
    home.fails(IncompleteDownloadError, "of 40000 bytes", max_attempts=3)
    assert len(home.server.requests) == 4


def test_a_few_bytes_in_each_attempt_count_as_a_stall(home: Home, clock: Clock) -> None:
    home.file.cap = 10
    home.server.inject(faulty.cut(1_000))
    home.fails(
        IncompleteDownloadError,
        "of 40000 bytes",
        clock=clock.time,
        sleep=lambda seconds: clock.sleep(5 + seconds),
    )
    assert len(home.server.requests) < 30


def test_a_body_that_never_begins_is_an_error(home: Home) -> None:
    home.server.inject(faulty.cut(0, times=None))
    home.fails(IncompleteDownloadError, r"ended after 0 of 40000 bytes", max_attempts=3)
    assert len(home.server.requests) == 3


def test_with_one_attempt_nothing_is_requested_twice(home: Home) -> None:
    home.server.inject(faulty.cut(0, times=None))
    home.fails(IncompleteDownloadError, "0 of 40000", max_attempts=1)
    assert len(home.server.requests) == 1


def test_waits_grow_up_to_the_cap_with_each_fruitless_attempt(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stac_gitlab.http.retry.random.uniform", lambda _low, high: high)
    home.server.inject(faulty.cut(0, times=None))
    policy = {"max_attempts": 5, "backoff_base": 1.0, "backoff_cap": 5.0}
    home.fails(IncompleteDownloadError, "0 of 40000", **policy)
    assert home.slept == [1.0, 2.0, 4.0, 5.0]


def test_attempts_that_bring_enough_bytes_are_no_stall_however_long_they_take_together(
    home: Home, clock: Clock
) -> None:
    home.server.inject(faulty.cut(5_000, times=7))
    received = home.download(
        max_attempts=2,
        clock=clock.time,
        sleep=clock.sleep,
        on_bytes=lambda *_: clock.sleep(40),
        min_rate=50.0,
        stall_window=60.0,
    )
    assert received.resumed
    assert clock.now > 1200
    home.assert_there()


# -- bodies that stall ----------------------------------------------------------------------------


def test_a_stalled_body_is_resumed(home: Home) -> None:
    home.server.inject(faulty.stalled(7_000))
    assert home.download(stall_window=0.2).resumed
    home.assert_there()
    assert home.ranges == [None, "bytes=7000-"]


def test_a_body_that_always_stalls_is_an_error(home: Home) -> None:
    home.file.keeps_ranges = False
    home.server.inject(faulty.stalled(7_000, times=None))
    progress = r"only 0 bytes arrived in 0.15 s, .*1024 a second.*min_rate and stall_window"
    home.fails(IncompleteDownloadError, progress, stall_window=0.15, max_attempts=1)


def test_a_body_below_the_minimum_rate_counts_as_stalled(home: Home) -> None:
    clock = [0.0]

    def note(received: int, _total: int | None) -> None:
        if len(home.server.requests) == 1:
            clock[0] += 10  # seconds, for a few hundred bytes

    home.server.inject(Fault(trickle=(100, 0.01)))
    received = home.download(on_bytes=note, clock=lambda: clock[0])
    home.assert_there()
    assert received.resumed
    assert len(home.server.requests) == 2


def test_a_slow_body_above_the_minimum_rate_may_take_hours(home: Home) -> None:
    clock = [0.0]
    taken = threading.Semaphore(0)

    def note(received: int, _total: int | None) -> None:
        clock[0] = received / 2200  # seconds, at 2200 bytes a second
        taken.release()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(BODY) * 40, 20_000):
            yield BODY[start % 40_000 :][:20_000]
            taken.acquire(timeout=10)

    home.server.route("/slow", lambda _: Answer(200, (), pieces(), length=len(BODY) * 40))
    home.download("/slow", on_bytes=note, clock=lambda: clock[0], deadline=30.0, stall_window=60.0)
    home.assert_there(BODY * 40)
    assert clock[0] > 600
    assert len(home.server.requests) == 1


# -- lengths that lie, framing that is broken -----------------------------------------------------


def test_a_body_without_length_that_ends_is_kept_but_not_called_verified(home: Home) -> None:
    home.server.inject(faulty.cut(20_000, length=False))
    with pytest.warns(UnverifiedDownloadWarning, match="may be incomplete"):
        received = home.download()
    assert not received.verified
    home.assert_there(BODY[:20_000])


def test_a_body_without_length_is_verified_by_the_size_of_the_metadata(home: Home) -> None:
    home.server.inject(Fault(close=True))
    assert home.download(size=len(BODY)).verified
    home.assert_there()


def test_a_body_without_length_is_verified_by_the_checksum_of_the_metadata(home: Home) -> None:
    home.server.inject(Fault(close=True))
    assert home.download(checksum=SHA256).verified
    home.assert_there()


def test_a_cut_body_without_length_is_found_by_size_or_checksum(home: Home) -> None:
    home.file.keeps_ranges = False
    home.server.inject(faulty.cut(20_000, length=False, times=None))
    home.fails(IncompleteDownloadError, "20000 bytes arrived, but file:size is 40000", size=40_000)
    home.fails(ChecksumMismatchError, "the sha256 of the file is", checksum=SHA256)
    assert len(home.server.requests) == 2 * 4, "the first attempt brought bytes, three did not"


@pytest.mark.parametrize("expected", [{"size": 40_000}, {"checksum": SHA256}])
@pytest.mark.parametrize("keeps_ranges", [True, False])
def test_a_body_without_length_that_is_too_short_is_resumed_or_downloaded_again(
    home: Home, expected: dict[str, Any], keeps_ranges: bool
) -> None:
    home.file.keeps_ranges = keeps_ranges
    home.server.inject(faulty.cut(15_000, length=False, times=2))
    received = home.download(**expected)
    home.assert_there()
    assert received.verified
    assert received.resumed is keeps_ranges


def test_a_complete_body_with_the_wrong_checksum_is_downloaded_once_more(home: Home) -> None:
    home.server.inject(Fault(body=CHANGED))
    received = home.download(checksum=SHA256)
    home.assert_there()
    assert received.verified
    assert home.ranges == [None, None]


def test_a_body_that_always_has_the_wrong_checksum_is_downloaded_twice(home: Home) -> None:
    home.server.inject(Fault(body=CHANGED, times=None))
    home.fails(ChecksumMismatchError, "the sha256 of the file is", checksum=SHA256)
    assert home.ranges == [None, None]


def test_a_content_length_that_is_too_large_is_an_error(home: Home) -> None:
    home.server.inject(faulty.announcing(40_001, times=None))
    home.fails(IncompleteDownloadError, "40000 of 40001 bytes")


def test_a_content_length_that_is_too_small_is_found_by_size_or_checksum(home: Home) -> None:
    home.server.inject(faulty.announcing(39_999, times=None))
    home.fails(
        IncompleteDownloadError, r"announces 39999 bytes, but file:size is 40000", size=40_000
    )
    home.fails(ChecksumMismatchError, "sha256", checksum=SHA256)


@pytest.mark.parametrize("length", ["-1", "4e4", "forty", "+40000", "40000, 40000", "9" * 30, ""])
def test_a_content_length_that_is_not_a_number_does_no_harm(home: Home, length: str) -> None:
    home.server.inject(Fault(headers={"content-length": length}, hang_up=True, times=None))
    home.target.write_bytes(b"good and old")
    try:
        home.download(checksum=SHA256)
    except STACGitLabError:
        home.assert_there(b"good and old")
    else:
        home.assert_there()


def test_a_repeated_content_length_is_one_length(home: Home) -> None:
    home.server.inject(Fault(headers={"content-length": "40000, 40000"}, hang_up=True))
    assert home.download().verified
    home.server.inject(Fault(headers={"content-length": "40001, 40001"}, hang_up=True, times=None))
    home.fails(IncompleteDownloadError, "40000 of 40001 bytes")


def test_no_more_bytes_are_accepted_than_the_metadata_state(home: Home) -> None:
    endless = itertools.repeat(b"4000\r\n" + bytes(0x4000) + b"\r\n")
    head = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
    with RawServer(lambda s, c: s.send(c, itertools.chain(head, endless))) as server:
        home.fails(
            IncompleteDownloadError,
            "more than the 40000 bytes",
            path=f"{server.url}/lakes.bin",
            size=40_000,
        )


BAD_CHUNKS = {
    "no number": b"5\r\nlakes\r\nzz\r\nrivers\r\n0\r\n\r\n",
    "negative": b"5\r\nlakes\r\n-6\r\nrivers\r\n0\r\n\r\n",
    "too long": b"5\r\nlakes\r\nffff\r\nrivers",
    "never ending number": b"5\r\nlakes\r\n" + b"f" * 100_000,
    "nothing at all": b"",
    "not chunked at all": b"lakes and rivers\r\n",
    "ends before the last chunk": b"5\r\nlakes\r\n",
    "ends within a chunk": b"5\r\nlak",
}


@pytest.mark.parametrize("wire", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_broken_chunks_are_a_broken_body(home: Home, wire: bytes) -> None:
    home.server.inject(faulty.in_raw_chunks(wire, times=None))
    home.fails(IncompleteDownloadError, "cut short or is malformed|no complete response")


@pytest.mark.parametrize("wire", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_after_broken_chunks_the_next_attempt_succeeds(home: Home, wire: bytes) -> None:
    home.server.inject(faulty.in_raw_chunks(wire))
    home.download()
    home.assert_there()


@pytest.mark.parametrize("status", [202, 204, 206])
def test_a_response_that_is_not_the_whole_file_is_an_error(home: Home, status: int) -> None:
    part = {"content-range": "bytes 0-9/40000"} if status == 206 else {}
    body = b"" if status == 204 else BODY[:10]
    home.server.inject(Fault(status=status, body=body, headers=part, times=None))
    home.fails(DownloadError, str(status))


# -- compression that nobody asked for ------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"chunked": True}, {"trickle": (7, 0.0)}])
def test_a_compressed_body_is_decoded_before_it_is_checked(home: Home, how: dict[str, Any]) -> None:
    home.file.content = b"id,name\n" * 500
    digest = "1220" + hashlib.sha256(home.file.content).hexdigest()
    home.server.inject(Fault(gzip=True, **how))
    received = home.download(size=4000, checksum=digest)
    home.assert_there(home.file.content)
    assert received.verified
    assert received.size == 4000


CSV_GZ = gzip.compress(b"day,level\n" * 500)
GZIPPED = {"content-encoding": "gzip"}


@pytest.mark.parametrize(
    "how",
    [
        {"key": "levels.csv.gz"},
        {"key": "levels", "media_type": "application/gzip"},
        {"key": "levels", "media_type": "application/x-gzip; charset=binary"},
        {"key": "levels", "path": "/levels.tgz"},
        {"key": "levels", "size": len(CSV_GZ)},
        {"key": "levels", "checksum": multihash_of(CSV_GZ)},
        {"key": "levels.csv.gz", "size": len(CSV_GZ), "checksum": multihash_of(CSV_GZ)},
    ],
)
def test_a_file_that_is_stored_compressed_stays_compressed(home: Home, how: dict[str, Any]) -> None:
    home.file.content, home.file.headers = CSV_GZ, GZIPPED
    home.server.route("/levels.tgz", home.file)
    assert home.download(**how).verified
    home.assert_there(CSV_GZ)


@pytest.mark.parametrize(
    "how",
    [
        {"key": "levels.csv"},
        {"key": "levels.csv.gz", "size": 5000},
        {"key": "levels.csv.gz", "checksum": multihash_of(b"day,level\n" * 500)},
        {"key": "levels.csv.zst"},
    ],
)
def test_a_file_that_is_only_sent_compressed_is_decoded(home: Home, how: dict[str, Any]) -> None:
    home.file.content, home.file.headers = CSV_GZ, GZIPPED
    assert home.download(**how).verified
    home.assert_there(b"day,level\n" * 500)


def test_a_file_that_is_stored_compressed_is_not_resumed(
    home: Home,
) -> None:
    home.file.content, home.file.headers = CSV_GZ, GZIPPED
    home.server.inject(faulty.cut(20))
    assert not home.download(key="levels.csv.gz").resumed
    home.assert_there(CSV_GZ)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_compressed_body_that_breaks_off_starts_over(home: Home, chunked: bool) -> None:
    home.server.inject(Fault(gzip=True, cut_after=20_000, chunked=chunked))
    received = home.download(checksum=SHA256)
    home.assert_there()
    assert received.verified


def test_a_plain_body_after_a_compressed_one_is_checked_for_its_length(home: Home) -> None:
    home.file.etag = None
    home.server.inject(Fault(gzip=True, cut_after=100))
    home.server.inject(faulty.cut(20_000))
    assert home.download().verified
    assert len(home.server.requests) == 3
    home.assert_there()


def test_a_compressed_body_is_not_resumed_at_a_position_of_the_decoded_one(home: Home) -> None:
    home.server.inject(Fault(gzip=True, cut_after=20_000))
    assert not home.download().resumed
    home.assert_there()
    assert home.ranges == [None, None]


def test_a_compressed_body_that_always_breaks_off_is_an_error(home: Home) -> None:
    home.server.inject(Fault(gzip=True, cut_after=20_000, times=None))
    home.fails(IncompleteDownloadError, "cut short", checksum=SHA256)


def test_a_compressed_part_is_not_appended(home: Home) -> None:
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(gzip=True))
    home.download()
    home.assert_there()


def test_a_compressed_body_without_length_is_not_called_verified(home: Home) -> None:
    home.server.inject(Fault(gzip=True, close=True))
    with pytest.warns(UnverifiedDownloadWarning):
        assert not home.download().verified
    home.assert_there()


def test_a_body_that_is_not_in_its_stated_encoding_is_broken(home: Home) -> None:
    home.server.inject(Fault(headers={"content-encoding": "gzip"}, times=None))
    home.fails(IncompleteDownloadError, "malformed")


def test_a_body_that_is_not_in_its_stated_encoding_is_the_file_if_its_checksum_says_so(
    home: Home,
) -> None:
    home.file.headers = GZIPPED
    assert home.download(checksum=SHA256).verified
    home.assert_there()


def test_a_highly_compressed_body_is_decoded_in_pieces(home: Home) -> None:
    home.file.content = bytes(8_000_000)
    assert len(gzip.compress(home.file.content)) < 10_000
    home.server.inject(Fault(gzip=True))
    home.download(size=8_000_000)
    assert home.target.stat().st_size == 8_000_000
    steps = [b - a for (a, _), (b, _) in zip(home.progress, home.progress[1:], strict=False)]
    assert max(steps) <= checksums.BUFFER_SIZE


# -- sizes and checksums --------------------------------------------------------------------------


def test_a_resumed_body_is_hashed_as_a_whole(home: Home) -> None:
    home.server.inject(faulty.cut(9_999, times=3))
    assert home.download(checksum=SHA256).checksum == SHA256
    home.assert_there()


def test_a_body_that_started_over_is_hashed_from_its_start(home: Home) -> None:
    home.file.keeps_ranges = False
    home.server.inject(faulty.cut(9_999))
    assert home.download(checksum=SHA256).checksum == SHA256


def test_a_large_body_is_hashed_in_the_background_with_the_same_result(home: Home) -> None:
    home.file.content = BODY * 125
    digest = "1220" + hashlib.sha256(home.file.content).hexdigest()
    home.server.inject(faulty.cut(2_345_678))
    assert home.download(checksum=digest).resumed
    home.assert_there(home.file.content)
    home.fails(ChecksumMismatchError, "sha256", checksum="1220" + "11" * 32)


def test_wrong_bytes_are_not_kept_for_a_later_run(home: Home) -> None:
    home.file.content = BODY * 50
    home.fails(IncompleteDownloadError, "file:size is 7", size=7)
    home.fails(ChecksumMismatchError, "Nothing was kept", checksum=SHA256)


# -- refusals, waits and redirects ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "requests_sent"),
    [
        (401, AuthenticationError, 1),
        (403, PermissionDeniedError, 1),
        (404, NotFoundError, 1),
        (500, ServerError, 3),
        (502, ServerError, 3),
        (503, ServerError, 3),
        (429, RateLimitError, 3),
    ],
)
def test_an_error_status_leaves_the_old_file(
    home: Home, status: int, error: type[Exception], requests_sent: int
) -> None:
    home.server.inject(Fault(status=status, body={"detail": "no lakes today"}, times=None))
    home.fails(error, rf"{status} .*no lakes today")
    assert len(home.server.requests) == requests_sent


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for(home: Home, status: int) -> None:
    home.server.inject(Fault(status=status, headers={"Retry-After": "7"}))
    home.download()
    home.assert_there()
    assert home.slept == [pytest.approx(7, abs=0.5)]


@pytest.mark.parametrize("status", [429, 503])
def test_without_retry_after_the_backoff_is_waited_for(home: Home, status: int) -> None:
    home.server.inject(Fault(status=status))
    home.download(backoff_base=0.5)
    home.assert_there()
    assert len(home.slept) == 1
    assert 0 <= home.slept[0] <= 0.5


def test_a_retry_after_of_an_hour_is_an_error(home: Home) -> None:
    home.server.inject(Fault(status=429, headers={"Retry-After": "3600"}, times=None))
    error = home.fails(RateLimitError, r"asks to wait 3600 s.*RetryPolicy\(max_wait=\)")
    assert getattr(error, "retry_after", None) == 3600
    assert home.slept == []


def test_a_429_while_resuming_is_retried_and_the_body_resumed(home: Home) -> None:
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(status=429, headers={"Retry-After": "2"}))
    assert home.download().resumed
    home.assert_there()
    assert home.ranges == [None, "bytes=100-", "bytes=100-"]


def test_a_304_leaves_its_connection_to_the_next_request(home: Home) -> None:
    home.server.inject(Fault(status=304, times=None))
    session = home.session()
    source = Source(f"{home.server.url}/lakes.bin", "lakes.bin")
    for _ in range(3):
        with pytest.raises(NotModified):
            download_file(session, source, home.target, known='"one"')
    pools = session.get_adapter(home.server.url).poolmanager.pools  # type: ignore[attr-defined]  # an HTTPAdapter
    assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118  # no dict


def test_a_304_with_an_older_date_is_no_proof_that_the_file_is_the_same(home: Home) -> None:
    newer, older = "Wed, 05 Jun 2024 10:00:00 GMT", "Tue, 04 Jun 2024 10:00:00 GMT"

    def restored(request: RecordedRequest) -> Answer:
        if "If-Modified-Since" in request.headers:
            return Answer(304, (("last-modified", older),), b"")
        return home.file(request)

    home.file.etag, home.file.modified = None, older
    home.server.route("/lakes.bin", restored)
    assert home.download(known=newer).validator == older
    home.assert_there()
    with pytest.raises(NotModified):
        home.download(known=older)


def test_a_304_without_a_condition_is_an_error(home: Home) -> None:
    home.server.inject(Fault(status=304, times=None))
    home.fails(HTTPStatusError, "304")
    home.server.clear_faults()
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(status=304, times=None))
    home.fails(HTTPStatusError, "304")


def test_a_404_while_resuming_is_an_error(home: Home) -> None:
    home.server.inject(faulty.cut(100))
    home.server.inject(Fault(status=404, times=None))
    home.fails(NotFoundError, "404")


def test_the_token_does_not_follow_a_redirect_to_another_origin(
    home: Home, other_server: LoopbackServer
) -> None:
    other_server.route("/object", home.file)
    home.server.route("/moved", Answer(302, (("location", f"{other_server.url}/object"),)))
    other_server.inject(faulty.cut(100))
    assert home.download("/moved").resumed
    home.assert_there()
    assert all(r.headers["X-Gitlab-Token"] == TOKEN for r in home.server.requests)
    assert [r.headers.get("Range") for r in other_server.requests] == [None, "bytes=100-"]
    for request in other_server.requests:
        assert TOKEN not in repr(request)


def test_a_redirect_loop_is_an_error(home: Home) -> None:
    home.server.route("/circle", Answer(302, (("location", "/circle"),)))
    home.fails(InvalidResponseError, "too many redirects", path="/circle")


def test_a_refused_connection_is_a_network_error(home: Home, other_server: LoopbackServer) -> None:
    url = f"{other_server.url}/lakes.bin"
    other_server.close()
    home.fails(NetworkError, "no connection", path=url)


def test_an_error_redacts_the_secrets_of_a_url(home: Home) -> None:
    home.server.inject(Fault(status=404, times=None))
    error = home.fails(NotFoundError, "404", path=f"/lakes.bin?gitlab_token={TOKEN}&ref=main")
    assert "ref=main" in str(error)
    assert TOKEN not in repr(error)


# -- where it is written --------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_handle: int, _content: object) -> int:
        raise OSError(28, "No space left on device")

    home.target.write_bytes(b"good and old")
    monkeypatch.setattr("stac_gitlab.files.partial_file.os.write", write)
    with pytest.raises(OSError, match="No space left"):
        home.download()
    home.assert_there(b"good and old")


def test_a_file_larger_than_the_free_space_is_refused_before_its_first_byte(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home.target.parent)._replace(free=2 * 2**20 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    home.file.content = bytes(2 * 2**20)
    home.fails(DownloadError, r"needs 2\.1 MB, but .* has only 2\.1 MB free for it\. Free")
    assert home.progress == []
    home.file.content = bytes(2 * 2**20 - 1)
    home.download()


def test_space_that_another_download_needs_is_not_free(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home.target.parent)._replace(free=3 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    home.file.content = bytes(2 * 2**20)
    other = SpaceClaim(home.target.parent, lambda: 2 * 2**20)
    assert other.take() is None
    home.fails(DownloadError, r"needs 2\.1 MB, but .* has only 1\.0 MB free for it\.")
    other.release()
    home.download()
    assert other.take() is None
    other.release()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_no_partial_file(
    home: Home, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    real = os.write

    def write(handle: int, content: memoryview) -> int:
        if os.fstat(handle).st_size + len(content) > 1_500_000:
            raise OSError(code, "No space left on device")
        return real(handle, content)

    monkeypatch.setattr("stac_gitlab.files.partial_file.os.write", write)
    home.file.content = BODY * 50
    with pytest.raises(OSError, match="No space left"):
        home.download()
    assert os.listdir(home.target.parent) == []


def test_any_other_write_error_keeps_the_partial_file(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write

    def write(handle: int, content: memoryview) -> int:
        if os.fstat(handle).st_size + len(content) > 1_500_000:
            raise OSError(errno.EIO, "Input/output error")
        return real(handle, content)

    home.file.content = BODY * 50
    with monkeypatch.context() as patch:
        patch.setattr("stac_gitlab.files.partial_file.os.write", write)
        with pytest.raises(OSError, match="Input/output"):
            home.download()
    assert home.download(continuing=True).resumed
    home.assert_there(BODY * 50)


def test_an_interrupt_leaves_the_old_file(home: Home) -> None:
    def interrupt(_received: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    home.target.write_bytes(b"good and old")
    with pytest.raises(KeyboardInterrupt):
        home.download(on_bytes=interrupt)
    home.assert_there(b"good and old")


def test_a_garbled_body_is_not_in_the_causes_of_its_error(home: Home) -> None:
    chunks = faulty.in_raw_chunks(f"5\r\nlakes\r\n{TOKEN}\r\n".encode())
    home.server.inject(replace(chunks, times=None))
    errors: list[BaseException | None] = [home.fails(IncompleteDownloadError, "malformed")]
    for error in errors:
        if error is not None:
            assert TOKEN not in str(error)
            errors += [error.__cause__, error.__context__]


def test_the_target_does_not_exist_before_it_is_complete(home: Home) -> None:
    def look(_received: int, _total: int | None) -> None:
        assert not home.target.exists()

    home.server.inject(Fault(trickle=(4_000, 0.0)))
    home.download(on_bytes=look)
    home.assert_there()


# -- a local file ---------------------------------------------------------------------------------


def copied(origin: Path, target: Path, **promised: Any) -> TransferResult:
    return copy_file(Source(str(origin), "lakes.bin", **promised), origin, target)


def test_a_local_file_is_copied_and_checked(tmp_path: Path) -> None:
    origin, target = tmp_path / "origin.bin", tmp_path / "lakes.bin"
    origin.write_bytes(BODY)
    received = copied(origin, target, size=40_000, checksum=Checksum.parse(SHA256))
    assert received == TransferResult(40_000, SHA256, verified=True, resumed=False)
    assert target.read_bytes() == BODY
    assert sorted(os.listdir(tmp_path)) == ["lakes.bin", "origin.bin"]


def test_a_copy_can_be_cancelled(tmp_path: Path) -> None:
    origin = tmp_path / "origin.bin"
    origin.write_bytes(BODY)
    stop = threading.Event()
    stop.set()
    with enforcing(Deadline(stop=stop)), pytest.raises(Cancelled):
        copied(origin, tmp_path / "lakes.bin")
    assert os.listdir(tmp_path) == ["origin.bin"]


def test_a_local_file_that_does_not_match_its_metadata_is_not_copied(tmp_path: Path) -> None:
    origin, target = tmp_path / "origin.bin", tmp_path / "lakes.bin"
    origin.write_bytes(CHANGED)
    target.write_bytes(b"good and old")
    with pytest.raises(ChecksumMismatchError):
        copied(origin, target, checksum=Checksum.parse(SHA256))
    with pytest.raises(IncompleteDownloadError):
        copied(origin, target, size=1)
    assert target.read_bytes() == b"good and old"
    assert sorted(os.listdir(tmp_path)) == ["lakes.bin", "origin.bin"]


def test_a_local_file_may_be_copied_onto_itself(tmp_path: Path) -> None:
    origin = tmp_path / "lakes.bin"
    origin.write_bytes(BODY)
    copied(origin, origin)
    assert origin.read_bytes() == BODY


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
def secure_home(tls_server: LoopbackServer, tmp_path: Path) -> Iterator[Home]:
    with ExitStack() as closing:
        yield Home(tls_server, tmp_path, closing)


def test_a_file_is_downloaded_over_tls(secure_home: Home) -> None:
    assert secure_home.server.url.startswith("https://")
    assert secure_home.download(checksum=SHA256).verified
    secure_home.assert_there()
    assert secure_home.server.requests[0].headers["X-Gitlab-Token"] == TOKEN


TLS_BREAKS = {
    "cut": faulty.cut(20_000),
    "reset": Fault(cut_after=20_000, reset=True),
    "chunks cut": Fault(cut_after=20_000, chunked=True),
    "no answer": Fault(drop=True),
}


@pytest.mark.parametrize("fault", TLS_BREAKS.values(), ids=TLS_BREAKS)
def test_a_body_cut_under_tls_is_resumed(secure_home: Home, fault: Fault) -> None:
    secure_home.server.inject(fault)
    # The next connections may break, too: OpenSSL reports a reset late.
    secure_home.download(max_attempts=20, backoff_base=0.01)
    secure_home.assert_there()
    assert len(secure_home.server.requests) >= 2


@pytest.mark.parametrize("fault", TLS_BREAKS.values(), ids=TLS_BREAKS)
def test_a_body_always_cut_under_tls_leaves_the_old_file(secure_home: Home, fault: Fault) -> None:
    secure_home.file.keeps_ranges = False
    secure_home.server.inject(Fault(**{**vars(fault), "times": None}))
    secure_home.fails((IncompleteDownloadError, NetworkError), "127.0.0.1|lakes")


def test_a_body_that_stalls_under_tls_is_resumed(secure_home: Home) -> None:
    secure_home.server.inject(faulty.stalled(7_000))
    assert secure_home.download(stall_window=0.2).resumed
    secure_home.assert_there()


def test_an_untrusted_certificate_is_an_error_and_gets_no_token(
    secure_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    secure_home.fails(NetworkError, "name its file in REQUESTS_CA_BUNDLE")
    assert secure_home.server.requests == []


def test_the_certificates_of_the_users_own_session_are_used(
    secure_home: Home, certificate: faulty.Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with requests.Session() as own:
        own.verify = str(certificate.file)
        credentials = Credentials(TOKEN, base_url=secure_home.server.url)
        with GitLabSession(credentials, transport=own) as session:
            url = f"{secure_home.server.url}/lakes.bin"
            download_file(session, Source(url, "lakes.bin"), secure_home.target)
    secure_home.assert_there()


# -- memory ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("gzipped", [False, True])
def test_memory_does_not_grow_with_the_file(
    server: LoopbackServer, tmp_path: Path, gzipped: bool
) -> None:
    size = 64 * 2**20
    headers = (("content-type", "application/octet-stream"), ("etag", '"one"'))
    if gzipped:
        packed = gzip.compress(bytes(size), compresslevel=1)
        coded = (*headers, ("content-encoding", "gzip"))
        server.route("/large.bin", lambda _: Answer(200, coded, packed))
    else:
        server.route("/large.bin", lambda _: Answer(200, headers, faulty.generated(size), size))
    script = f"""
        import re
        from pathlib import Path
        from stac_gitlab.auth import Credentials
        from stac_gitlab.files.checksums import Checksum
        from stac_gitlab.http.session import GitLabSession
        from stac_gitlab.download.source import Source
        from stac_gitlab.download.transfer import download_file

        def peak():
            status = Path("/proc/self/status").read_text()
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024

        before = peak()
        source = Source({server.url + "/large.bin"!r}, "large.bin", size={size})
        with GitLabSession(Credentials()) as session:
            download_file(session, source, Path({str(tmp_path / "large.bin")!r}))
        print(peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (tmp_path / "large.bin").stat().st_size == size
    assert float(done.stdout) < 32, "MB; the file has 64"
