"""A file in the making: nothing under the final name until it is whole."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stac_gitlab.files.partial_file import OWN_PREFIX, leftovers_for, leftovers_in, partial_file_for

posix_only = pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")


def test_the_file_is_there_only_once_it_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with partial_file_for(target) as part:
        part.write(b"id,")
        part.write(memoryview(b"name"))
        assert not target.exists()
        assert part.size == 7
        part.finish()
        assert target.read_bytes() == b"id,name"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_what_stood_there_stays_until_then(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    target.write_bytes(b"old")
    with partial_file_for(target) as part:
        part.write(b"new")
        assert target.read_bytes() == b"old"
        part.finish()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "lakes.csv"
    target.write_bytes(b"old")

    def write_half() -> None:
        with partial_file_for(target) as part:
            part.write(b"half of the n")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_without_finish_nothing_comes_about(tmp_path: Path) -> None:
    with partial_file_for(tmp_path / "lakes.csv") as part:
        part.write(b"id")
    assert os.listdir(tmp_path) == []


def test_the_file_in_the_making_stands_beside_its_target_under_a_name_of_ours(
    tmp_path: Path,
) -> None:
    with partial_file_for(tmp_path / "lakes.csv") as part:
        assert os.listdir(tmp_path) == [], "there is nothing to write yet"
        part.write(b"id")
        (name,) = os.listdir(tmp_path)
        assert name.startswith(OWN_PREFIX)


def test_two_writers_of_one_target_do_not_share_a_file(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with partial_file_for(target) as one, partial_file_for(target) as other:
        one.write(b"one")
        other.write(b"other")
        one.finish()
        assert target.read_bytes() == b"one"
        other.finish()
        assert target.read_bytes() == b"other"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_starting_anew_forgets_what_was_written(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with partial_file_for(target) as part:
        part.write(b"a long first attempt")
        part.restart()
        assert part.size == 0
        part.write(b"short")
        assert part.beginning(100) == b"short"
        assert part.beginning(2) == b"sh"
        part.finish()
    assert target.read_bytes() == b"short"


def test_a_write_that_the_system_does_in_pieces_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, view: real(handle, view[:3]))
    target = tmp_path / "lakes.csv"
    with partial_file_for(target) as part:
        part.write(b"0123456789")
        assert part.size == 10
        part.finish()
    assert target.read_bytes() == b"0123456789"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "lakes.csv"
    target.write_bytes(b"old")

    def write(_handle: int, _content: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"), partial_file_for(target) as part:
        part.write(b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "lakes.csv"
    with pytest.raises(FileNotFoundError), partial_file_for(missing) as part:
        part.write(b"id")


def test_a_file_without_a_byte_is_made_all_the_same(tmp_path: Path) -> None:
    with partial_file_for(tmp_path / "empty.csv") as part:
        part.finish()
    assert (tmp_path / "empty.csv").read_bytes() == b""


def test_a_folder_in_the_place_of_the_target_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lakes.csv").mkdir()
    with (
        pytest.raises(OSError, match=r"lakes\.csv"),
        partial_file_for(tmp_path / "lakes.csv") as part,
    ):
        part.finish()
    assert os.listdir(tmp_path) == ["lakes.csv"]


@posix_only
def test_a_new_file_gets_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    before = os.umask(0o027)
    try:
        with partial_file_for(target) as part:
            part.finish()
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@posix_only
def test_a_replaced_file_keeps_its_permissions_but_vouches_for_nothing(tmp_path: Path) -> None:
    target = tmp_path / "run.sh"
    target.write_bytes(b"old")
    target.chmod(0o4755)
    with partial_file_for(target) as part:
        part.finish()
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@posix_only
def test_a_link_in_the_place_of_the_target_is_replaced_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_bytes(b"not yours")
    target = tmp_path / "lakes.csv"
    target.symlink_to(elsewhere)
    with partial_file_for(target) as part:
        part.write(b"new")
        part.finish()
    assert elsewhere.read_bytes() == b"not yours"
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"


def test_no_file_stays_open(tmp_path: Path) -> None:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("open files are counted in /proc")
    before = len(os.listdir(folder))
    for _ in range(5):
        with partial_file_for(tmp_path / "lakes.csv") as part:
            part.write(b"x")
            part.finish()
        with partial_file_for(tmp_path / "rivers.csv") as part:
            part.write(b"x")
    assert len(os.listdir(folder)) == before


# -- what a later run takes over ------------------------------------------------------------------


def left_behind(target: Path, content: bytes, **notes: object) -> None:
    """What an interrupted run leaves: a part with a description."""
    with partial_file_for(target) as part:
        part.describe(notes)
        part.write(content)


def test_a_described_part_is_kept_and_taken_over_by_a_later_run(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    left_behind(target, b"first ", total=12)
    assert not target.exists()
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    assert (leftover.size, leftover.description()) == (6, {"total": 12})
    with partial_file_for(target) as part:
        assert part.take_over(leftover)
        assert part.size == 6
        part.write(b"second")
        part.finish()
    assert target.read_bytes() == b"first second"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_a_part_is_taken_over_only_once(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    left_behind(target, b"first ")
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    with partial_file_for(target) as one, partial_file_for(target) as other:
        assert one.take_over(leftover)
        assert not other.take_over(leftover)
        assert (one.size, other.size) == (6, 0)


def test_what_is_left_of_another_file_is_not_for_this_one(tmp_path: Path) -> None:
    left_behind(tmp_path / "rivers.csv", b"first ")
    assert leftovers_for(tmp_path / "lakes.csv", leftovers_in(tmp_path)) == []


def test_a_part_that_is_still_written_to_is_nobody_elses(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with partial_file_for(target) as part:
        part.describe({"total": 12})
        part.write(b"first ")
        assert leftovers_for(target, leftovers_in(tmp_path)) == []


def test_a_part_whose_process_is_gone_is_there_for_the_taking(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    script = f"""
import os
from stac_gitlab.files.partial_file import PartialFile

part = PartialFile({str(target)!r})
part.describe({{"total": 12}})
part.write(b"first ")
os._exit(9)
"""
    subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    assert (leftover.size, leftover.description()) == (6, {"total": 12})
    leftover.remove()
    assert os.listdir(tmp_path) == []


def test_an_empty_part_and_one_that_cannot_be_continued_are_not_kept(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    left_behind(target, b"")
    with partial_file_for(target) as part:
        part.describe({"total": 12})
        part.write(b"first ")
        part.describe(None)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\x00", "[" * 60_000])
def test_a_damaged_description_is_none(tmp_path: Path, text: str) -> None:
    target = tmp_path / "lakes.csv"
    left_behind(target, b"first ", total=12)
    (description,) = tmp_path.glob("*.json")
    description.write_text(text)
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    assert leftover.description() is None


def test_a_part_can_be_cut_and_read_back(tmp_path: Path) -> None:
    with partial_file_for(tmp_path / "lakes.csv") as part:
        part.write(b"0123456789")
        part.cut(7)
        buffer = memoryview(bytearray(4))
        assert b"".join(bytes(buffer[:n]) for n in part.read_back(lambda: buffer)) == b"0123456"
        part.write(b"x")
        assert part.beginning(20) == b"0123456x"


def test_only_a_plain_file_is_taken_for_what_was_left(tmp_path: Path) -> None:
    target, precious = tmp_path / "lakes.csv", tmp_path / "precious"
    precious.write_text("precious")
    left_behind(target, b"first ")
    (kept,) = tmp_path.glob("*.part")
    for put_there in (
        lambda: kept.symlink_to(precious),
        lambda: kept.hardlink_to(precious),
        lambda: os.mkfifo(kept),
        kept.mkdir,
    ):
        kept.unlink()
        put_there()
        assert leftovers_for(target, leftovers_in(tmp_path)) == []
    assert precious.read_text() == "precious"


def test_a_description_is_read_from_a_plain_file_only(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    left_behind(target, b"first ")
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    (description,) = tmp_path.glob("*.json")
    description.rename(tmp_path / "elsewhere")
    description.symlink_to(tmp_path / "elsewhere")
    assert leftover.description() is None
    description.unlink()
    os.mkfifo(description)  # to open it would be to wait for ever
    assert leftover.description() is None
    description.unlink()
    description.mkdir()
    assert leftover.description() is None


def test_what_is_left_in_no_folder_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert leftovers_in(tmp_path / "missing") == {}
    assert leftovers_in(tmp_path / "file") == {}
