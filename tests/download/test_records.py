"""Records of downloaded files."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_items import Conditional, item_of

from stac_gitlab import STACDownloader
from stac_gitlab.download.content_version import (
    FILE_NAME,
    Record,
    append_record,
    compact_records,
    read_records,
)
from stac_gitlab.download.source import url_digest
from stac_gitlab.testing import LoopbackServer

RECORD = Record("data/a.csv", 7, 1_600_000_000_123_456_789, "f" * 32, "1220ab", '"one"')


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    sparse = Record("b", 0, 0, "")
    append_record(tmp_path, RECORD)
    append_record(tmp_path, sparse)
    assert read_records(tmp_path) == {"data/a.csv": RECORD, "b": sparse}


def test_the_latest_record_of_a_path_counts(tmp_path: Path) -> None:
    append_record(tmp_path, RECORD)
    append_record(tmp_path, Record("data/a.csv", 8, 9, "0"))
    assert read_records(tmp_path)["data/a.csv"].size == 8


def test_a_record_is_one_line_of_ascii(tmp_path: Path) -> None:
    append_record(tmp_path, Record("データ\n.csv", 7, 1, "f"))
    written = (tmp_path / FILE_NAME).read_bytes()
    assert written.isascii()
    assert written.count(b"\n") == 1
    assert "validator" not in json.loads(written)


def test_a_folder_without_records_has_none(tmp_path: Path) -> None:
    assert read_records(tmp_path) == {}
    assert read_records(tmp_path / "missing") == {}
    (tmp_path / FILE_NAME).mkdir()
    assert read_records(tmp_path) == {}


def test_a_link_or_pipe_with_the_name_of_the_records_is_neither_read_nor_written(
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "elsewhere"
    append_record(tmp_path, RECORD)
    (tmp_path / FILE_NAME).rename(elsewhere)
    before = elsewhere.read_bytes()

    (tmp_path / FILE_NAME).symlink_to(elsewhere)
    assert read_records(tmp_path) == {}
    with pytest.raises(OSError, match="symbolic"):
        append_record(tmp_path, RECORD)
    assert elsewhere.read_bytes() == before

    (tmp_path / FILE_NAME).unlink()
    os.mkfifo(tmp_path / FILE_NAME)  # to open it would be to wait for ever
    assert read_records(tmp_path) == {}
    with pytest.raises(OSError, match="No such device"):
        append_record(tmp_path, RECORD)


def test_an_endless_line_is_not_read(tmp_path: Path) -> None:
    append_record(tmp_path, RECORD)
    os.truncate(tmp_path / FILE_NAME, 2**40)
    assert read_records(tmp_path) == {"data/a.csv": RECORD}


def test_a_record_describes_a_file_with_its_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"content")
    os.utime(file, ns=(5, 6_000_000_000))
    record = Record("a", 7, 6_000_000_000, "")
    assert record.describes(file)
    os.utime(file, ns=(5, 6_000_001_000))
    assert not record.describes(file)
    file.write_bytes(b"longer content")
    os.utime(file, ns=(5, 6_000_000_000))
    assert not record.describes(file)
    assert not record.describes(tmp_path / "missing")


@pytest.mark.parametrize("validator", ['"a"\r\nX-Evil: 1', '"a\x00"', '"é"', '"\u202e"'])
def test_a_validator_that_cannot_be_a_header_is_dropped(tmp_path: Path, validator: str) -> None:
    line = {"path": "a", "size": 1, "mtime_ns": 1, "source": "", "validator": validator}
    (tmp_path / FILE_NAME).write_text(json.dumps(line))
    assert read_records(tmp_path)["a"].validator is None


@pytest.mark.parametrize(
    "changes",
    [
        {"path": None},
        {"path": ["a"]},
        {"path": 5},
        {"size": "7"},
        {"size": None},
        {"size": True},
        {"mtime_ns": 1.5},
        {"source": {}},
        {"checksum": 5},
        {"validator": ["x"]},
    ],
)
def test_an_invalid_line_is_ignored(tmp_path: Path, changes: dict[str, Any]) -> None:
    sound = {"path": "a", "size": 1, "mtime_ns": 1, "source": "", "added later": 1}
    lines = [json.dumps({**sound, **changes}), json.dumps({**sound, "path": "b"})]
    (tmp_path / FILE_NAME).write_text("\n".join(lines))
    assert list(read_records(tmp_path)) == ["b"]


@given(st.binary(max_size=300))
def test_any_content_is_read_without_an_error(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes
) -> None:
    folder = tmp_path_factory.mktemp("records")
    (folder / FILE_NAME).write_bytes(rubbish + b"\n")
    append_record(folder, RECORD)
    assert read_records(folder)["data/a.csv"] == RECORD


def test_concurrent_writers_do_not_mix_their_records(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        for number in range(50):
            append_record(tmp_path, Record(f"{writer}/{number}", number, writer, "f" * 32))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_records(tmp_path)) == 400


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system follows links")
def test_records_are_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="link"):
        append_record(tmp_path, RECORD)
    assert not (tmp_path / "mine").exists()


def recorded_file(folder: Path, name: str) -> Record:
    (folder / name).write_bytes(b"content")
    status = (folder / name).stat()
    return Record(name, status.st_size, status.st_mtime_ns, "f")


def test_compacted_records_are_the_latest_ones_of_files_that_are_unchanged(tmp_path: Path) -> None:
    kept, changed = recorded_file(tmp_path, "kept"), recorded_file(tmp_path, "changed")
    gone, odd = Record("gone", 1, 1, "f"), Record("a\0", 1, 1, "f")
    for record in [changed, gone, odd, *[Record("kept", 1, 1, "f")] * 200, kept]:
        append_record(tmp_path, record)
    (tmp_path / "changed").write_bytes(b"other content")
    assert read_records(tmp_path).need_compacting
    compact_records(tmp_path)
    assert read_records(tmp_path) == {"kept": kept}
    assert (tmp_path / FILE_NAME).read_bytes().count(b"\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "changed", FILE_NAME}


def test_a_few_outdated_records_are_kept(tmp_path: Path) -> None:
    for _ in range(100):
        append_record(tmp_path, RECORD)
    assert not read_records(tmp_path).need_compacting


@pytest.mark.parametrize("is_changed", [True, False])
def test_a_run_that_writes_compacts_the_records(
    server: LoopbackServer, downloader: STACDownloader, tmp_path: Path, is_changed: bool
) -> None:
    server.route("/a", Conditional(b"a", etag='"one"'))
    item = item_of({"a": f"{server.url}/a"})
    downloader.download_assets(item, tmp_path)
    for _ in range(200):
        append_record(tmp_path, Record("gone", 1, 1, "f"))
    downloader.download_assets(item, tmp_path, overwrite="always" if is_changed else "if-changed")
    assert set(read_records(tmp_path)) == ({"a"} if is_changed else {"a", "gone"})
    assert downloader.download_assets(item, tmp_path)["a"].status == "skipped"


def test_a_url_is_recorded_as_a_digest_only() -> None:
    assert url_digest("https://h/a?ref=x") != url_digest("https://h/a?ref=y")
    assert len(url_digest("https://h/\ud800")) == 32
    assert len(url_digest("https://[h/a?b")) == 32
