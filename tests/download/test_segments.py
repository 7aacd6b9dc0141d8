"""One file over several connections: the same bytes as over one, whatever fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fault_server as faulty
import pytest
from fault_server import FAULTS_TO_FAIL_OF, FAULTS_TO_SURVIVE, Gate, ServedFile
from home import Home
from sample_items import BODY, CHANGED, SHA256, files_in, item_of, leftovers_in, multihash_of

from stac_gitlab import GitLabStacIO, STACDownloader
from stac_gitlab.download.transfer import NotModified
from stac_gitlab.errors import (
    ChecksumMismatchError,
    ConfigurationError,
    DownloadError,
    IncompleteDownloadError,
    NotFoundError,
    STACGitLabError,
)
from stac_gitlab.testing import Answer, Fault, LoopbackServer, RecordedRequest

FIRST = 4_000


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments have kilobytes instead of megabytes."""
    monkeypatch.setattr("stac_gitlab.download.transfer.FIRST_SEGMENT", FIRST)
    monkeypatch.setattr("stac_gitlab.download.stream._MIN_SEGMENT", 1_000)


@pytest.fixture
def home(home: Home) -> Home:
    """It downloads files over four connections."""
    home.segments = 4
    return home


# -- when nothing goes wrong ----------------------------------------------------------------------


@pytest.mark.parametrize("segments", [2, 3, 4, 16])
@pytest.mark.parametrize("size", [1, FIRST - 1, FIRST, FIRST + 1, 9_999, 40_000])
def test_every_byte_is_requested_once(home: Home, segments: int, size: int) -> None:
    home.file.content = BODY[:size]
    received = home.download(segments=segments, checksum=multihash_of(BODY[:size]), size=size)
    home.assert_there(BODY[:size])
    assert received.size == size
    assert received.verified
    assert not received.resumed
    asked = [(text or "").removeprefix("bytes=").partition("-") for text in home.ranges]
    spans = [range(int(first), min(size, int(last) + 1)) for first, _, last in asked]
    assert sorted(byte for span in spans for byte in span) == list(range(size))
    assert home.progress[-1] == (size, size)


def test_segments_are_downloaded_over_as_many_connections_as_requested(
    home: Home, server: LoopbackServer
) -> None:
    all_there = threading.Barrier(3, timeout=10)

    def together(request: RecordedRequest) -> Answer:
        if request.headers["Range"] != f"bytes=0-{FIRST - 1}" and len(server.requests) <= 4:
            all_there.wait()
        return home.file(request)

    server.route("/lakes.bin", together)
    home.download()
    home.assert_there()
    assert not all_there.broken


def test_a_small_file_takes_one_range_request(home: Home) -> None:
    home.file.content = BODY[:FIRST]
    home.download()
    assert home.ranges == [f"bytes=0-{FIRST - 1}"]


def test_with_one_segment_there_is_one_request_without_a_range(home: Home) -> None:
    home.download(segments=1)
    home.assert_there()
    assert home.ranges == [None]


def test_an_empty_file_is_downloaded(home: Home) -> None:
    home.file.content = b""
    assert home.download().size == 0
    home.assert_there(b"")


def test_the_same_content_is_not_sent_again(home: Home, server: LoopbackServer) -> None:
    def conditional(request: RecordedRequest) -> Answer:
        known = request.headers.get("If-None-Match") == home.file.etag
        return Answer(304) if known else home.file(request)

    server.route("/lakes.bin", conditional)
    with pytest.raises(NotModified):
        home.download(known='"one"')


# -- servers that cannot, or will not --------------------------------------------------------------


def test_a_server_without_ranges_sends_the_file_over_one_connection(home: Home) -> None:
    home.file.keeps_ranges = False
    assert home.download(checksum=multihash_of(BODY)).verified
    home.assert_there()
    assert len(home.ranges) == 1


@pytest.mark.parametrize(("size", "has_threads"), [(FIRST, False), (FIRST + 1, True)])
def test_a_file_that_fits_into_its_first_segment_needs_no_threads(
    home: Home, size: int, has_threads: bool
) -> None:
    home.file.content = BODY[:size]
    threads: set[threading.Thread] = set()
    home.download(on_bytes=lambda *_: threads.add(threading.current_thread()))
    assert (threads != {threading.current_thread()}) is has_threads
    home.assert_there(BODY[:size])


def test_segments_without_a_validator_or_checksum_are_not_combined(home: Home) -> None:
    home.file.etag = None
    home.download()
    home.assert_there()
    assert home.ranges == [f"bytes=0-{FIRST - 1}", None]


@pytest.mark.parametrize("etag", [None, 'W/"one"'])
def test_segments_with_a_checksum_are_combined(home: Home, etag: str | None) -> None:
    home.file.etag = etag
    home.download(checksum=multihash_of(BODY))
    home.assert_there()
    assert len(home.ranges) > 4


def test_segments_with_a_date_are_combined(home: Home) -> None:
    home.file.etag, home.file.modified = None, "Fri, 20 Nov 2026 11:51:58 GMT"
    home.download()
    home.assert_there()
    assert len(home.ranges) > 4


@pytest.mark.parametrize(
    "span",
    [
        lambda asked: range(asked.start + 1, asked.stop),
        lambda asked: range(asked.start, asked.stop - 1),
        lambda asked: range(asked.stop - asked.start),
    ],
    ids=["later", "shorter", "from the start"],
)
def test_other_ranges_than_the_requested_ones_are_not_used(
    home: Home, span: Callable[[range], range]
) -> None:
    home.file.span = lambda asked: asked if asked.start == 0 else span(asked)
    home.download()
    home.assert_there()


def test_the_rest_of_a_shorter_part_is_requested(home: Home) -> None:
    home.file.cap = 15_000
    home.download()
    home.assert_there()


# -- content that changes -------------------------------------------------------------------------


@pytest.mark.parametrize("honest", [True, False], ids=["If-Range kept", "If-Range passed over"])
def test_content_that_changes_during_the_download_is_never_mixed(
    home: Home, server: LoopbackServer, honest: bool
) -> None:
    home.file.keeps_if_range = honest
    asked = 0

    def changing(request: RecordedRequest) -> Answer:
        nonlocal asked
        asked += 1
        if asked == 4:
            home.file.content, home.file.etag = CHANGED, '"two"'
        return home.file(request)

    server.route("/lakes.bin", changing)
    home.download()
    home.assert_there(CHANGED)


def test_segments_whose_checksum_does_not_match_are_downloaded_again_as_a_whole(
    home: Home, server: LoopbackServer
) -> None:
    home.file.etag = None
    asked = 0

    def changing(request: RecordedRequest) -> Answer:
        nonlocal asked
        asked += 1
        home.file.content = BODY if asked < 4 else CHANGED
        return home.file(request)

    server.route("/lakes.bin", changing)
    home.download(checksum=multihash_of(CHANGED))
    home.assert_there(CHANGED)
    assert home.ranges[-1] is None


def test_a_wrong_checksum_leaves_the_old_file(home: Home) -> None:
    home.target.write_bytes(b"good and old")
    with pytest.raises(ChecksumMismatchError):
        home.download(checksum=multihash_of(CHANGED))
    home.assert_there(b"good and old")


def test_a_wrong_size_is_noticed_before_the_other_segments_are_requested(home: Home) -> None:
    with pytest.raises(IncompleteDownloadError, match="file:size is 39999"):
        home.download(size=39_999)
    assert len(home.ranges) == 1
    assert os.listdir(home.target.parent) == []


# -- connections that fail ------------------------------------------------------------------------


@pytest.mark.parametrize("which", [1, 2, 3, 7])
@pytest.mark.parametrize("name", FAULTS_TO_SURVIVE)
def test_a_fault_that_happens_once_is_survived(home: Home, name: str, which: int) -> None:
    faults = [Fault(trickle=(40_000, 0))] * (which - 1)
    for fault in faults:
        home.server.inject(fault)
    home.server.inject(FAULTS_TO_SURVIVE[name])
    home.download(checksum=multihash_of(BODY))
    home.assert_there()


# A cut behind 20 000 bytes spares every part that is shorter.
@pytest.mark.parametrize("name", sorted(FAULTS_TO_FAIL_OF.keys() - {"cut without length"}))
def test_a_fault_that_always_happens_leaves_the_old_file(home: Home, name: str) -> None:
    fault, _ = FAULTS_TO_FAIL_OF[name]
    home.target.write_bytes(b"good and old")
    home.server.inject(replace(fault, times=None))
    with pytest.raises(STACGitLabError):
        home.download(checksum=multihash_of(BODY), size=len(BODY))
    home.assert_there(b"good and old")


@pytest.mark.parametrize("checksum", [None, SHA256])
def test_the_bytes_before_the_first_gap_are_kept_and_hashed_once(
    home: Home, checksum: str | None
) -> None:
    home.server.inject(Fault(trickle=(40_000, 0)))
    home.server.inject(faulty.cut(500))
    assert home.download(checksum=checksum).checksum == checksum
    home.assert_there()
    assert home.ranges.count(f"bytes=0-{FIRST - 1}") == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_allows_one_connection_is_asked_over_one(
    home: Home, server: LoopbackServer, status: int
) -> None:
    lock = threading.Lock()
    under_way = 0

    def one_at_a_time(request: RecordedRequest) -> Answer:
        nonlocal under_way
        answer = home.file(request)

        def pieces() -> Iterator[bytes]:
            nonlocal under_way
            try:
                threading.Event().wait(0.02)
                assert isinstance(answer.body, bytes)
                yield answer.body
            finally:
                with lock:
                    under_way -= 1

        with lock:
            if under_way:
                return Answer(status)
            under_way += 1
        assert isinstance(answer.body, bytes)
        return Answer(answer.status, answer.headers, pieces(), length=len(answer.body))

    server.route("/lakes.bin", one_at_a_time)
    home.download(sleep=lambda _seconds: time.sleep(0.1))
    home.assert_there()


def test_segments_after_a_leftover_continue_its_hash(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stac_gitlab.download.content_version.KEEP_FROM", 1)
    home.server.inject(faulty.cut(10_000))
    home.server.inject(Fault(status=404))
    with pytest.raises(NotFoundError):
        home.download(segments=1)
    received = home.download(checksum=SHA256, continuing=True)
    home.assert_there()
    assert received.resumed
    assert f"bytes=10000-{10_000 + FIRST - 1}" in home.ranges
    assert len(home.ranges) > 4


# -- in a run -------------------------------------------------------------------------------------


def test_a_downloader_downloads_large_files_over_several_connections(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path
) -> None:
    server.route("/lakes.bin", ServedFile(BODY))
    item = item_of({"lakes.bin": f"{server.url}/lakes.bin"})
    assert downloader.download_assets(item, tmp_path, segments=4).ok
    assert files_in(tmp_path) == {"lakes.bin": BODY}
    assert len(server.requests) > 4
    [again] = downloader.download_assets(item, tmp_path, segments=4).values()
    assert again.path is not None
    assert files_in(tmp_path) == {"lakes.bin": BODY}


@pytest.mark.parametrize("segments", [0, -1, 17, 2.0, "4", True, None])
def test_an_invalid_number_of_segments_is_refused(
    downloader: STACDownloader, tmp_path: Path, segments: Any
) -> None:
    with pytest.raises(ConfigurationError, match="segments="):
        downloader.download_assets(item_of({}), tmp_path, segments=segments)


def test_a_cancelled_run_leaves_a_partial_file_without_gaps_and_no_thread(
    server: LoopbackServer, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stac_gitlab.download.content_version.KEEP_FROM", 1)
    gate = Gate(b"never")
    begun = threading.Event()

    def stuck(request: RecordedRequest) -> Answer:
        start = int(request.headers["Range"].removeprefix("bytes=").partition("-")[0])
        if start > 20_000:
            begun.set()
            return gate(request)
        return home.file(request)

    def refuse(_request: RecordedRequest) -> Answer:
        begun.wait(10)
        return Answer(404)

    server.route("/lakes.bin", stuck)
    server.route("/bad", refuse)
    item = item_of({"lakes.bin": f"{server.url}/lakes.bin", "bad": f"{server.url}/bad"})
    with (
        GitLabStacIO("glpat-x", base_url=server.url) as stac_io,
        pytest.raises(DownloadError),
    ):
        STACDownloader(stac_io=stac_io).download_assets(item, tmp_path, segments=4, fail_fast=True)
    gate.open()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("stac-gitlab")]
    [part] = [name for name in leftovers_in(tmp_path) if name.endswith(".part")]
    kept = (tmp_path / part).read_bytes()
    assert kept == BODY[: len(kept)]
    assert FIRST <= len(kept) < len(BODY)
    server.route("/lakes.bin", home.file)
    before = len(server.requests)
    received = home.download(continuing=True)
    home.assert_there()
    assert received.resumed
    assert f"bytes=0-{FIRST - 1}" not in home.ranges[before:]
