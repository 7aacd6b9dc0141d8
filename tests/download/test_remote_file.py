"""An asset opened like a file: the right bytes, few requests, clear errors."""

from __future__ import annotations

import codecs
import csv
import errno
import gzip
import io
import json
import random
import re
import socket
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import fault_server as faulty
import pystac
import pytest
from fault_server import ServedFile
from hypothesis import given
from hypothesis import strategies as st
from sample_items import BODY, TOKEN, item_of, multihash_of

from stac_gitlab import RetryPolicy, STACDownloader
from stac_gitlab.download.remote_content import BLOCK_SIZE
from stac_gitlab.errors import (
    AssetNotFoundError,
    ChecksumMismatchError,
    ConfigurationError,
    DownloadError,
    IncompleteDownloadError,
    InvalidResponseError,
    LFSPointerError,
    NetworkError,
    NotFoundError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.testing import (
    Answer,
    Fault,
    GitLabServer,
    LoopbackServer,
    Project,
    RecordedRequest,
    SharingHubServer,
)
from tests.conftest import Clock
from tests.raw_server import RawServer

BIG = random.Random(4).randbytes(3 * BLOCK_SIZE + 12_345)
BLOCK = 1000
SOME = random.Random(5).randbytes(12_345)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stac_gitlab.download.remote_content.BLOCK_SIZE", BLOCK)


def asset_of(server: LoopbackServer, route: Any, **fields: Any) -> pystac.Asset:
    server.route("/a", ServedFile(route) if isinstance(route, bytes) else route)
    item = item_of({"a": {"href": f"{server.url}/a", **fields}}, at=f"{server.url}/items/lakes")
    return item.assets["a"]


def bytes_asked_for(server: LoopbackServer) -> int:
    """The bytes of all ranges that were asked for."""
    total = 0
    for request in server.requests:
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        total += int(last) - int(first) + 1
    return total


# -- reading --------------------------------------------------------------------------------------


def test_a_whole_file_is_read_in_few_requests(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    with downloader.open(asset_of(server, BIG)) as file:
        assert file.read() == BIG
    assert len(server.requests) <= 3
    assert bytes_asked_for(server) == len(BIG)
    assert all(request.headers["X-Gitlab-Token"] == TOKEN for request in server.requests)


def test_a_file_that_is_read_piece_by_piece_comes_in_growing_blocks(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    with downloader.open(asset_of(server, BIG)) as file:
        assert b"".join(iter(lambda: file.read(256 * 1024), b"")) == BIG
    assert len(server.requests) == 3
    assert bytes_asked_for(server) == len(BIG)


def test_a_large_piece_is_requested_alone(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    with downloader.open(asset_of(server, BIG)) as file:
        file.seek(2 * BLOCK_SIZE)
        assert file.read(300_001) == BIG[2 * BLOCK_SIZE :][:300_001]
    assert len(server.requests) == 2
    assert bytes_asked_for(server) < BLOCK_SIZE + 310_000


def test_a_small_file_takes_one_request(server: LoopbackServer, downloader: STACDownloader) -> None:
    with downloader.open(asset_of(server, SOME)) as file:
        assert file.read() == SOME
        assert file.seek(-5, io.SEEK_END) == len(SOME) - 5
        assert file.read(100) == SOME[-5:]
    assert len(server.requests) == 1


@pytest.mark.parametrize("size", [1, 7, 4096, 65_537, BLOCK_SIZE, BLOCK_SIZE + 1])
def test_reads_of_any_size_come_in_blocks(
    server: LoopbackServer, downloader: STACDownloader, size: int
) -> None:
    wanted = BIG if size > 1000 else BIG[:100_000]
    with downloader.open(asset_of(server, BIG)) as file:
        pieces = b"".join(iter(lambda: file.read(size) if file.tell() < len(wanted) else b"", b""))
    assert pieces[: len(wanted)] == wanted
    assert len(server.requests) <= 6


@pytest.mark.parametrize("size", [1, 8192, 262_144])
def test_small_pieces_read_through_a_text_wrapper_come_in_blocks(
    server: LoopbackServer, downloader: STACDownloader, size: int
) -> None:
    text = b"day,level\n" * (len(BIG) // 10)
    with downloader.open(asset_of(server, text)) as file:
        pieces = iter(lambda: file.read1(size), b"") if size > 1 else iter([file.read()])  # type: ignore[attr-defined]  # a BufferedReader
        assert b"".join(pieces) == text
    assert len(server.requests) <= 4


def test_only_the_needed_blocks_are_requested(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    with downloader.open(asset_of(server, BIG)) as file:
        file.seek(-100, io.SEEK_END)
        assert file.read() == BIG[-100:]
        file.seek(10)
        assert file.read(5) == BIG[10:15]
    assert bytes_asked_for(server) == BLOCK_SIZE + 100
    assert len(server.requests) == 2


def test_it_behaves_like_a_file(
    server: LoopbackServer, downloader: STACDownloader, small_blocks: None
) -> None:
    file = downloader.open(asset_of(server, SOME))
    assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
    assert file.tell() == 0
    assert file.seek(5000) == 5000
    assert file.read(10) == SOME[5000:5010]
    assert file.seek(-10, io.SEEK_CUR) == 5000
    assert file.seek(10**9) == 10**9
    assert file.read(1) == b""
    buffer = bytearray(50)
    file.seek(2990)
    assert file.readinto(buffer) == 50  # type: ignore[attr-defined]
    assert bytes(buffer) == SOME[2990:3040]
    for position, whence in ((-1, io.SEEK_SET), (-len(SOME) - 1, io.SEEK_END), (0, 7)):
        with pytest.raises(ValueError, match=r"position|whence"):
            file.seek(position, whence)
    file.close()
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read()


@pytest.fixture(scope="module")
def open_file() -> Iterator[BinaryIO]:
    """`SOME` on a server, opened with blocks of 1000 bytes."""
    with LoopbackServer() as server, STACDownloader(TOKEN, server.url) as downloader:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stac_gitlab.download.remote_content.BLOCK_SIZE", BLOCK)
            file = downloader.open(asset_of(server, SOME))
        with file:
            yield file


@given(
    st.lists(
        st.tuples(
            st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END, None]),
            st.integers(-len(SOME) - 10, len(SOME) + 10),
            st.integers(-1, 3000),
        ),
        max_size=8,
    )
)
def test_random_reads_return_the_same_as_those_of_a_local_file(
    open_file: BinaryIO, steps: list[tuple[int | None, int, int]]
) -> None:
    local = io.BytesIO(SOME)
    local.seek(open_file.tell())
    for whence, offset, count in steps:
        if whence is not None:
            at = max(0, {0: 0, 1: local.tell(), 2: len(SOME)}[whence] + offset)
            assert open_file.seek(at) == local.seek(at)
        assert open_file.read(count) == local.read(count)
        assert open_file.tell() == local.tell()


# -- who reads it ---------------------------------------------------------------------------------


def test_a_zip_archive_is_read_in_place(server: LoopbackServer, downloader: STACDownloader) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("large.bin", BIG)
        archive.writestr("small.txt", "small")
    with (
        downloader.open(asset_of(server, packed.getvalue())) as file,
        zipfile.ZipFile(file) as archive,
    ):
        assert archive.namelist() == ["large.bin", "small.txt"]
        assert archive.read("small.txt") == b"small"
        assert bytes_asked_for(server) <= 2 * BLOCK_SIZE
        assert archive.read("large.bin") == BIG


def test_json_and_csv_are_read_in_place(
    server: LoopbackServer, downloader: STACDownloader, small_blocks: None
) -> None:
    rows = [{"day": str(n), "level": "é" * (n % 7)} for n in range(500)]
    with downloader.open(asset_of(server, json.dumps(rows).encode())) as file:
        assert json.load(file) == rows
    text = io.StringIO()
    writer = csv.DictWriter(text, ["day", "level"])
    writer.writeheader()
    writer.writerows(rows)
    with downloader.open(asset_of(server, text.getvalue().encode())) as file:
        assert list(csv.DictReader(codecs.getreader("utf-8")(file))) == rows
    with downloader.open(asset_of(server, text.getvalue().encode())) as file:
        assert list(csv.DictReader(io.TextIOWrapper(file, "utf-8"))) == rows


# -- servers without ranges -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "manners",
    [
        {"keeps_ranges": False},
        {"span": lambda asked: range(1, len(asked) + 1)},
        {"headers": {"content-encoding": "gzip"}, "keeps_ranges": False},
    ],
    ids=["none", "another part", "compressed"],
)
def test_without_ranges_the_whole_file_is_fetched_once(
    server: LoopbackServer, downloader: STACDownloader, manners: dict[str, Any]
) -> None:
    content = gzip.compress(BIG, 1) if "headers" in manners else BIG
    with downloader.open(asset_of(server, ServedFile(content, **manners))) as file:
        assert file.seek(-10, io.SEEK_END) == len(BIG) - 10
        assert file.read() == BIG[-10:]
        file.seek(0)
        assert file.read() == BIG
    whole = [request for request in server.requests if request.status == 200]
    assert len(whole) == 1
    assert not whole[0].abandoned


@pytest.mark.parametrize("span", ["bytes 0-99999999/*", "bytes 5-2/100", "0-9/10", "bytes 0-9/x"])
def test_an_invalid_content_range_is_not_used(
    server: LoopbackServer, downloader: STACDownloader, span: str
) -> None:
    server.inject(Fault(query="", headers={"content-range": span}))
    with downloader.open(asset_of(server, SOME)) as file:
        assert file.read() == SOME


def test_a_part_that_is_larger_than_requested_is_not_read_into_memory(
    server: LoopbackServer, downloader: STACDownloader, small_blocks: None
) -> None:
    route = ServedFile(SOME, span=lambda asked: range(len(SOME)))
    with downloader.open(asset_of(server, route)) as file:
        assert file.read() == SOME
        assert isinstance(getattr(file, "name", None), str), "a file on this machine"


@pytest.mark.parametrize("keeps_ranges", [True, False])
def test_an_empty_file_is_empty(
    server: LoopbackServer, downloader: STACDownloader, keeps_ranges: bool
) -> None:
    with downloader.open(asset_of(server, ServedFile(b"", keeps_ranges=keeps_ranges))) as file:
        assert file.read() == b""
        assert file.seek(0, io.SEEK_END) == 0


def test_an_empty_body_in_place_of_a_file_is_an_error(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    with pytest.raises(IncompleteDownloadError, match="file:size is 7"):
        downloader.open(asset_of(server, b"", **{"file:size": 7}))


# -- not what it should be ------------------------------------------------------------------------


def test_another_size_than_in_the_metadata_is_an_error(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    with pytest.raises(IncompleteDownloadError, match="file:size is 4"):
        downloader.open(asset_of(server, BIG, **{"file:size": 4}))


def test_a_small_file_is_checked_against_its_checksum(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    with downloader.open(asset_of(server, SOME, **{"file:checksum": multihash_of(SOME)})) as file:
        assert file.read() == SOME
    with pytest.raises(ChecksumMismatchError):
        downloader.open(asset_of(server, SOME, **{"file:checksum": multihash_of(BIG)}))


def test_a_document_that_the_server_generates_is_opened_without_the_token(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    path = "/api/stac/collections/dataset/items/lakes"
    server.route(path, {"type": "Feature", "note": TOKEN})
    item = item_of({"item": f"{server.url}{path}"}, at=f"{server.url}/items/lakes")
    with downloader.open(item.assets["item"]) as file:
        assert json.load(file)["type"] == "Feature"
        file.seek(0)
        assert TOKEN.encode() not in file.read()


def test_a_message_is_not_opened_in_place_of_a_binary_file(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    message = b'{"detail": "no such scene"}' + b" " * 2000
    with pytest.raises(InvalidResponseError, match="no such scene"):
        downloader.open(asset_of(server, message, type="image/tiff"))


def test_a_file_of_another_format_is_opened_with_a_warning(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(2000)
    with pytest.warns(UnverifiedDownloadWarning, match="should be a TIFF file, but it is a PNG"):
        file = downloader.open(asset_of(server, picture, type="image/tiff"))
    with file:
        assert file.read() == picture
    assert len(server.requests) == 1


def test_a_pointer_is_not_opened_in_place_of_the_file(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    for pointer in (faulty.LFS_POINTER, faulty.DVC_POINTER):
        with pytest.raises(LFSPointerError):
            downloader.open(asset_of(server, pointer))


def test_a_pointer_in_gitlab_is_resolved(downloader: STACDownloader) -> None:
    project = Project("group/lakes", {"big.tif": SOME}, lfs=("*.tif",))
    with GitLabServer([project], token=TOKEN) as gitlab:
        href = f"{gitlab.url}/api/v4/projects/group%2Flakes/repository/files/big.tif/raw?ref=main"
        item = item_of({"big.tif": {"href": href, "file:size": len(SOME)}})
        with (
            STACDownloader(TOKEN, gitlab.url) as own,
            own.open(item.assets["big.tif"]) as file,
        ):
            assert file.read() == SOME


def test_the_files_of_a_hub_are_opened() -> None:
    files = {"blob.csv": SOME, "large.safetensors": BIG}
    project = Project("group/lakes", files, lfs=("*.safetensors",))
    with SharingHubServer([project], token=TOKEN) as hub, STACDownloader(TOKEN, hub.url) as loader:
        item = loader.load_item("dataset", "group", "lakes")
        for key, content in files.items():
            with loader.open(item.assets[key]) as file:
                file.seek(100)
                assert file.read(50) == content[100:150]
                file.seek(0)
                assert file.read() == content


def test_an_error_status_is_raised(server: LoopbackServer, downloader: STACDownloader) -> None:
    server.inject(Fault(status=404))
    with pytest.raises(NotFoundError):
        downloader.open(asset_of(server, SOME))


# -- while it is read -----------------------------------------------------------------------------

CHANGES: dict[str, tuple[ServedFile, ServedFile]] = {
    "etag": (ServedFile(BIG), ServedFile(BIG[::-1], etag='"two"')),
    "etag, If-Range passed over": (
        ServedFile(BIG),
        ServedFile(BIG[::-1], etag='"two"', keeps_if_range=False),
    ),
    "weak etag": (
        ServedFile(BIG, etag='W/"one"'),
        ServedFile(BIG[::-1], etag='W/"two"', keeps_if_range=False),
    ),
    "date": (
        ServedFile(BIG, etag=None, modified="Wed, 01 Jan 2020 00:00:00 GMT"),
        ServedFile(BIG[::-1], etag=None, modified="Thu, 02 Jan 2020 00:00:00 GMT"),
    ),
    "date, If-Range passed over": (
        ServedFile(BIG, etag=None, modified="Wed, 01 Jan 2020 00:00:00 GMT"),
        ServedFile(
            BIG[::-1],
            etag=None,
            modified="Thu, 02 Jan 2020 00:00:00 GMT",
            keeps_if_range=False,
        ),
    ),
    "size": (ServedFile(BIG, etag=None), ServedFile(BIG + b"!", etag=None)),
    "shorter": (ServedFile(BIG, etag=None), ServedFile(BIG[:5], etag=None)),
}


@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_while_it_is_read_is_an_error(
    server: LoopbackServer, downloader: STACDownloader, before: ServedFile, after: ServedFile
) -> None:
    with downloader.open(asset_of(server, before)) as file:
        assert file.read(10) == BIG[:10]
        server.route("/a", after)
        file.seek(2 * BLOCK_SIZE)
        with pytest.raises(DownloadError, match=r"'a': the file has changed while it was read"):
            file.read(10)


@pytest.mark.parametrize(
    "fault",
    [
        faulty.cut(0),
        faulty.cut(300),
        faulty.cut(300, length=False),
        Fault(reset=True),
        Fault(reset=True, cut_after=300),
        Fault(drop=True),
        Fault(status=503),
        Fault(status=429),
        Fault(chunked=True, cut_after=300),
    ],
)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_broken_range_is_requested_again(
    server: LoopbackServer,
    downloader: STACDownloader,
    small_blocks: None,
    fault: Fault,
    after: int,
) -> None:
    server.inject(Fault(**{**vars(fault), "after": after}))
    with downloader.open(asset_of(server, SOME)) as file:
        pieces = [file.read(700) for _ in range(20)]
    assert b"".join(pieces) == SOME
    assert server.faults[0].hits == 1


def test_a_range_that_always_breaks_is_an_error_and_keeps_the_position(
    server: LoopbackServer, downloader: STACDownloader, small_blocks: None
) -> None:
    with downloader.open(asset_of(server, SOME)) as file:
        file.seek(5000)
        server.inject(faulty.cut(0, times=None))
        with pytest.raises(IncompleteDownloadError, match=r"'a': .*Try again"):
            file.read(10)
        assert len(server.requests) == 1 + 3
        server.clear_faults()
        assert file.read(10) == SOME[5000:5010]


def test_a_dropped_connection_is_a_network_error(
    server: LoopbackServer, downloader: STACDownloader, small_blocks: None
) -> None:
    with downloader.open(asset_of(server, SOME)) as file:
        server.inject(Fault(drop=True, times=None))
        file.seek(5000)
        with pytest.raises(NetworkError):
            file.read(10)


def test_a_slow_response_does_not_block_a_reader_for_ever(
    server: LoopbackServer, small_blocks: None
) -> None:
    policy = RetryPolicy(max_attempts=1, deadline=0.2)
    with (
        STACDownloader(TOKEN, server.url, retry=policy) as downloader,
        downloader.open(asset_of(server, SOME)) as file,
    ):
        file.seek(5000)
        server.inject(Fault(trickle=(1, 0.01), times=None))
        started = time.monotonic()
        # The bytes that arrived in time are used; the rest is requested again.
        assert file.read(10) == SOME[5000:5010]
        assert time.monotonic() - started < 10


# -- which asset ----------------------------------------------------------------------------------


def test_responses_of_a_few_bytes_do_not_block_a_reader_for_ever(
    server: LoopbackServer, clock: Clock
) -> None:
    file = ServedFile(BIG)
    asset = asset_of(server, file)
    retry = RetryPolicy(clock=clock.time, sleep=clock.sleep)
    with STACDownloader(TOKEN, server.url, retry=retry) as downloader, downloader.open(asset) as f:
        assert f.read(10) == BIG[:10]
        file.cap = 10

        def slowly(request: RecordedRequest) -> Answer:
            clock.sleep(1)
            return file(request)

        server.route("/a", slowly)
        with pytest.raises(IncompleteDownloadError, match="only 600 bytes arrived in 60 s"):
            f.read()


def test_chunk_sizes_are_not_read_as_content(downloader: STACDownloader) -> None:
    def answer(server: RawServer, connection: socket.socket) -> None:
        first, last = re.findall(rb"bytes=(\d+)-(\d+)", server.requests[-1])[0]
        content = BIG[int(first) : int(last) + 1]
        coding = b"chunked" if int(first) == 0 else b"gzip, chunked"
        head = b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: %s\r\n" % coding
        place = b"Content-Range: bytes %s-%s/%d\r\n\r\n" % (first, last, len(BIG))
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
        server.send(connection, [head + place, body])

    with RawServer(answer) as server:
        item = item_of({"a": f"{server.url}/a"}, at=f"{server.url}/items/lakes")
        with downloader.open(item.assets["a"]) as file, pytest.raises(DownloadError):
            file.read()


def test_a_local_asset_is_opened_in_place(downloader: STACDownloader, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(SOME)
    item = item_of({"a": "./a.csv", "b": "./b.csv"}, at=str(tmp_path / "item.json"))
    with downloader.open(item.assets["a"]) as file:
        assert file.read() == SOME
    with pytest.raises(DownloadError, match=r"'b': .*b\.csv' cannot be opened"):
        downloader.open(item.assets["b"])


def test_a_remote_item_cannot_open_local_files(downloader: STACDownloader, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(SOME)
    item = item_of({"a": (tmp_path / "a.csv").as_uri()}, at="https://hub.example.org/item")
    with pytest.raises(DownloadError, match="refers to a local file"):
        downloader.open(item.assets["a"])


@pytest.mark.parametrize(
    ("href", "why"), [("s3://bucket/a", "aws s3"), ("http://[bad", "is not a URL")]
)
def test_an_href_that_cannot_be_opened_is_an_error_with_the_reason(
    downloader: STACDownloader, href: str, why: str
) -> None:
    with pytest.raises(DownloadError, match=why):
        downloader.open(item_of({"a": href}).assets["a"])


def test_an_asset_has_to_belong_to_an_item(
    server: LoopbackServer, downloader: STACDownloader
) -> None:
    asset = asset_of(server, SOME)
    item = asset.owner
    assert isinstance(item, pystac.Item)
    lonely = pystac.Asset(asset.href)
    with pytest.raises(ConfigurationError, match="pass item="):
        downloader.open(lonely)
    with pytest.raises(AssetNotFoundError):
        downloader.open(lonely, item=item)
    item.assets["lonely"] = lonely
    with downloader.open(lonely, item=item) as file:
        assert file.read() == SOME


def test_no_error_contains_the_token(
    server: LoopbackServer, downloader: STACDownloader, small_blocks: None
) -> None:
    asset = asset_of(server, SOME)
    asset.href += f"?gitlab_token={TOKEN}"
    with downloader.open(asset) as file:
        file.seek(5000)

        def echo(request: RecordedRequest) -> Answer:
            return Answer(500, (), repr(request).encode())

        server.inject(Fault(answer=echo, times=None))
        with pytest.raises(Exception, match="500") as caught:
            file.read(10)
    assert TOKEN not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert all(TOKEN not in request.target for request in server.requests)


def test_the_error_for_a_full_temporary_folder_names_it(
    server: LoopbackServer,
    downloader: STACDownloader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(_handle: int, _content: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("stac_gitlab.files.partial_file.os.write", write)
    server.route("/a", BODY)
    server.inject(Fault(path="/a", chunked=True))
    item = item_of({"a": f"{server.url}/a"})
    with pytest.raises(DownloadError) as caught:
        downloader.open(item.assets["a"])
    assert f"the temporary folder {str(tmp_path)!r}" in str(caught.value)
    assert "No space left on device. Free some space there, or" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_error_without_any_temporary_folder_says_how_to_name_one(
    server: LoopbackServer, downloader: STACDownloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", refuse)
    monkeypatch.setattr(tempfile, "tempdir", None)
    server.route("/a", BODY)
    item = item_of({"a": f"{server.url}/a"})
    with pytest.raises(DownloadError, match=r"No usable temporary directory.*TMPDIR"):
        downloader.open(item.assets["a"])
