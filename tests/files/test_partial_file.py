"""A partial file: nothing appears under the final name until it is complete."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stac_gitlab.files import partial_file
from stac_gitlab.files.partial_file import (
    OWN_PREFIX,
    Leftover,
    PartialFile,
    SmallFiles,
    leftovers_for,
    leftovers_in,
    open_own,
    write_atomically,
)

posix_only = pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")


def test_the_file_is_there_only_once_it_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with PartialFile(target) as part:
        part.write(b"id,")
        part.write(memoryview(b"name"))
        assert not target.exists()
        assert part.size == 7
        part.finish()
        assert target.read_bytes() == b"id,name"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_the_old_file_stays_until_the_new_one_is_finished(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    target.write_bytes(b"old")
    with PartialFile(target) as part:
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
        with PartialFile(target) as part:
            part.write(b"half of the n")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_without_finish_no_file_is_left(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "lakes.csv") as part:
        part.write(b"id")
    assert os.listdir(tmp_path) == []


def test_the_partial_file_is_beside_its_target_and_has_a_name_of_ours(
    tmp_path: Path,
) -> None:
    with PartialFile(tmp_path / "lakes.csv") as part:
        assert os.listdir(tmp_path) == [], "there is nothing to write yet"
        part.write(b"id")
        (name,) = os.listdir(tmp_path)
        assert name.startswith(OWN_PREFIX)


def test_two_writers_of_one_target_do_not_share_a_file(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with PartialFile(target) as one, PartialFile(target) as other:
        one.write(b"one")
        other.write(b"other")
        one.finish()
        assert target.read_bytes() == b"one"
        other.finish()
        assert target.read_bytes() == b"other"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_a_truncated_file_starts_from_the_beginning(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with PartialFile(target) as part:
        part.write(b"a long first attempt")
        part.truncate()
        assert part.size == 0
        part.write(b"short")
        assert part.read_start(100) == b"short"
        assert part.read_start(2) == b"sh"
        part.finish()
    assert target.read_bytes() == b"short"


def test_a_write_that_the_system_splits_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, view: real(handle, view[:3]))
    target = tmp_path / "lakes.csv"
    with PartialFile(target) as part:
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
    with pytest.raises(OSError, match="No space left"), PartialFile(target) as part:
        part.write(b"new")
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "lakes.csv"
    with pytest.raises(FileNotFoundError), PartialFile(missing) as part:
        part.write(b"id")


def test_an_empty_file_is_created(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "empty.csv") as part:
        part.finish()
    assert (tmp_path / "empty.csv").read_bytes() == b""


def test_a_folder_in_the_place_of_the_target_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lakes.csv").mkdir()
    with (
        pytest.raises(OSError, match=r"lakes\.csv"),
        PartialFile(tmp_path / "lakes.csv") as part,
    ):
        part.finish()
    assert os.listdir(tmp_path) == ["lakes.csv"]


@posix_only
def test_a_new_file_gets_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    before = os.umask(0o027)
    try:
        with PartialFile(target) as part:
            part.finish()
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@posix_only
def test_a_replaced_file_keeps_its_permissions_but_not_its_set_user_id_bit(tmp_path: Path) -> None:
    target = tmp_path / "run.sh"
    target.write_bytes(b"old")
    target.chmod(0o4755)
    with PartialFile(target) as part:
        part.finish()
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


@posix_only
def test_a_link_in_the_place_of_the_target_is_replaced_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_bytes(b"not yours")
    target = tmp_path / "lakes.csv"
    target.symlink_to(elsewhere)
    with PartialFile(target) as part:
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
        with PartialFile(tmp_path / "lakes.csv") as part:
            part.write(b"x")
            part.finish()
        with PartialFile(tmp_path / "rivers.csv") as part:
            part.write(b"x")
    assert len(os.listdir(folder)) == before


def test_a_partial_file_may_have_the_file_descriptor_0(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    script = f"""
import os
from stac_gitlab.files.partial_file import PartialFile

os.close(0)
with PartialFile({str(target)!r}) as part:
    part.write(b"id")
    os.fstat(0)
    part.write(b",name")
    part.finish()
try:
    os.fstat(0)
except OSError:
    print("closed")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    assert subprocess.check_output(command, env=environment, text=True) == "closed\n"
    assert target.read_bytes() == b"id,name"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_a_file_is_written_atomically_into_folders_that_are_created(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "lakes.csv"
    write_atomically(str(target), b"id,name")
    assert target.read_bytes() == b"id,name"
    assert os.listdir(target.parent) == ["lakes.csv"]


# -- leftovers of earlier runs ------------------------------------------------------------------


def leave(target: Path, content: bytes, **notes: object) -> None:
    """Leave what an interrupted run leaves: a partial file with resume info."""
    with PartialFile(target) as part:
        part.save_resume_info(notes)
        part.write(content)


def test_a_partial_file_with_resume_info_is_kept_and_continued_by_a_later_run(
    tmp_path: Path,
) -> None:
    target = tmp_path / "lakes.csv"
    leave(target, b"first ", total=12)
    assert not target.exists()
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    assert (leftover.size, leftover.resume_info()) == (6, {"total": 12})
    with PartialFile(target) as part:
        assert part.take_over(leftover)
        assert part.size == 6
        part.write(b"second")
        part.finish()
    assert target.read_bytes() == b"first second"
    assert os.listdir(tmp_path) == ["lakes.csv"]


def test_a_leftover_is_taken_over_only_once(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    leave(target, b"first ")
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    with PartialFile(target) as one, PartialFile(target) as other:
        assert one.take_over(leftover)
        assert not other.take_over(leftover)
        assert (one.size, other.size) == (6, 0)


def test_a_leftover_of_another_file_is_not_for_this_one(tmp_path: Path) -> None:
    leave(tmp_path / "rivers.csv", b"first ")
    assert leftovers_for(tmp_path / "lakes.csv", leftovers_in(tmp_path)) == []


def test_a_partial_file_that_is_still_written_is_no_leftover(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    with PartialFile(target) as part:
        part.save_resume_info({"total": 12})
        part.write(b"first ")
        assert leftovers_for(target, leftovers_in(tmp_path)) == []


@posix_only
def test_a_partial_file_whose_process_lives_is_never_taken_over_however_old_it_is(
    tmp_path: Path,
) -> None:
    target = tmp_path / "lakes.csv"
    with PartialFile(target) as part:
        part.save_resume_info({"total": 12})
        part.write(b"first ")
        path = part.open_path()
        os.utime(path, (0, 0))
        assert leftovers_for(target, leftovers_in(tmp_path)) == []
        abandoned = Leftover(path, 6)
        abandoned.remove()
        with PartialFile(target) as other:
            assert not other.take_over(abandoned)
        part.finish()
    assert target.read_bytes() == b"first "
    assert os.listdir(tmp_path) == ["lakes.csv"]


@posix_only
def test_a_file_system_without_locks_lets_only_given_up_files_be_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(_handle: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("stac_gitlab.files.partial_file.fcntl.flock", flock)
    target = tmp_path / "lakes.csv"
    with PartialFile(target) as part:
        part.save_resume_info({"total": 12})
        part.write(b"first ")
        os.utime(part.open_path(), (0, 0))
        assert leftovers_for(target, leftovers_in(tmp_path)) == []
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    with PartialFile(target) as part:
        assert part.take_over(leftover)
        part.write(b"second")
        part.finish()
    assert target.read_bytes() == b"first second"
    assert os.listdir(tmp_path) == ["lakes.csv"]


@posix_only
@pytest.mark.parametrize(("age", "is_abandoned"), [(0, False), (3500, False), (3700, True)])
def test_a_partial_file_of_another_machine_is_abandoned_after_an_hour_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: int, is_abandoned: bool
) -> None:
    target = tmp_path / "lakes.csv"
    monkeypatch.setattr("stac_gitlab.files.partial_file._this_machine", lambda: "0123abcd")
    part = PartialFile(target)
    part.write(b"first ")
    path = part.open_path()
    os.close(part._handle)
    monkeypatch.undo()
    changed = time.time() - age
    os.utime(path, (changed, changed))
    assert bool(leftovers_for(target, leftovers_in(tmp_path))) is is_abandoned


@posix_only
def test_a_new_partial_file_that_another_process_locks_first_gets_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    lock = partial_file._lock

    def lose_once(handle: int) -> bool | None:
        if not taken:
            taken.extend(os.listdir(tmp_path))
            return False
        return lock(handle)

    monkeypatch.setattr(partial_file, "_lock", lose_once)
    with PartialFile(tmp_path / "lakes.csv") as part:
        part.write(b"id")
        assert taken
        assert os.path.basename(part.open_path()) not in taken


@posix_only
def test_a_new_partial_file_that_another_process_removes_gets_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = partial_file._lock

    def remove_first(handle: int) -> bool | None:
        monkeypatch.undo()
        for path in tmp_path.iterdir():
            path.unlink()
        return lock(handle)

    monkeypatch.setattr(partial_file, "_lock", remove_first)
    with PartialFile(tmp_path / "lakes.csv") as part:
        part.write(b"id")
        part.finish()
    assert (tmp_path / "lakes.csv").read_bytes() == b"id"


def test_a_leftover_that_cannot_be_renamed_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "lakes.csv"
    leave(target, b"first ")
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))

    def refuse(_source: str, _target: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with PartialFile(target) as part:
        monkeypatch.setattr(os, "replace", refuse)
        assert not part.take_over(leftover)
        monkeypatch.undo()
        part.write(b"whole")
        part.finish()
    assert target.read_bytes() == b"whole"


@posix_only
def test_a_leftover_of_a_user_who_does_not_share_it_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "lakes.csv"
    leave(target, b"first ")
    real = os.open

    def refuse_to_write(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse_to_write)
    assert leftovers_for(target, leftovers_in(tmp_path)) == []


def test_the_sidecar_of_a_partial_file_that_is_gone_is_removed_as_a_leftover(
    tmp_path: Path,
) -> None:
    target = tmp_path / "lakes.csv"
    leave(target, b"first ")
    (part,) = tmp_path.glob("*.part")
    part.unlink()
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    assert leftover == Leftover(str(part), 0)
    with PartialFile(target) as other:
        assert not other.take_over(leftover)
    leftover.remove()
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_permissions_still_gets_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: str, _mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    target = tmp_path / "lakes.csv"
    target.write_bytes(b"old")
    monkeypatch.setattr(os, "chmod", refuse)
    with PartialFile(target) as part:
        part.write(b"new")
        part.finish()
    assert target.read_bytes() == b"new"


def test_the_partial_file_of_a_process_that_is_gone_is_a_leftover(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    script = f"""
import os
from stac_gitlab.files.partial_file import PartialFile

part = PartialFile({str(target)!r})
part.save_resume_info({{"total": 12}})
part.write(b"first ")
os._exit(9)
"""
    subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    assert (leftover.size, leftover.resume_info()) == (6, {"total": 12})
    leftover.remove()
    assert os.listdir(tmp_path) == []


def test_a_partial_file_is_not_kept_on_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(total=1000, free=49)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with PartialFile(tmp_path / "a.csv") as part:
        part.write(b"half")
        part.save_resume_info({"total": 12})
    assert list(tmp_path.iterdir()) == []


def test_an_empty_partial_file_and_one_without_resume_info_are_not_kept(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    leave(target, b"")
    with PartialFile(target) as part:
        part.save_resume_info({"total": 12})
        part.write(b"first ")
        part.save_resume_info(None)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\x00", "[" * 60_000])
def test_damaged_resume_info_is_none(tmp_path: Path, text: str) -> None:
    target = tmp_path / "lakes.csv"
    leave(target, b"first ", total=12)
    (sidecar,) = tmp_path.glob("*.json")
    sidecar.write_text(text)
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    assert leftover.resume_info() is None


def test_a_partial_file_can_be_truncated_and_read(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "lakes.csv") as part:
        part.write(b"0123456789")
        part.truncate(7)
        buffer = memoryview(bytearray(4))
        assert b"".join(bytes(buffer[:n]) for n in part.read_into(lambda: buffer)) == b"0123456"
        part.write(b"x")
        assert part.read_start(20) == b"0123456x"


def test_only_a_regular_file_is_a_leftover(tmp_path: Path) -> None:
    target, precious = tmp_path / "lakes.csv", tmp_path / "precious"
    precious.write_text("precious")
    leave(target, b"first ")
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


def test_resume_info_is_read_from_a_regular_file_only(tmp_path: Path) -> None:
    target = tmp_path / "lakes.csv"
    leave(target, b"first ")
    (leftover,) = leftovers_for(target, leftovers_in(tmp_path))
    (sidecar,) = tmp_path.glob("*.json")
    sidecar.rename(tmp_path / "elsewhere")
    sidecar.symlink_to(tmp_path / "elsewhere")
    assert leftover.resume_info() is None
    sidecar.unlink()
    os.mkfifo(sidecar)  # to open it would be to wait for ever
    assert leftover.resume_info() is None
    sidecar.unlink()
    sidecar.mkdir()
    assert leftover.resume_info() is None


def test_a_missing_folder_holds_no_leftovers(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert leftovers_in(tmp_path / "missing") == {}
    assert leftovers_in(tmp_path / "file") == {}


def test_what_a_file_that_was_kept_can_do_says_nothing_about_the_next_one(tmp_path: Path) -> None:
    with PartialFile(tmp_path / "lakes.csv") as part:
        part.save_resume_info({"total": 12})
        part.write(b"first ")
        part.discard()
        kept = sorted(os.listdir(tmp_path))
        assert len(kept) == 2
        part.write(b"another")
    assert sorted(os.listdir(tmp_path)) == kept


@posix_only
def test_only_a_regular_file_is_opened_as_one_of_ours(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(FileNotFoundError, match="is not a regular file"):
            open_own(tmp_path / name)


def test_small_files_are_written_and_replaced_through_one_partial_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    (tmp_path / "sub/b.json").symlink_to(elsewhere)
    files = SmallFiles(tmp_path)
    files.write(tmp_path / "a.json", b"a")
    files.write(tmp_path / "sub/b.json", b"b")
    files.write(tmp_path / "a.json", b"another")
    assert (tmp_path / "a.json").read_bytes() == b"another"
    assert (tmp_path / "sub/b.json").read_bytes() == b"b"
    assert elsewhere.read_bytes() == b"not ours"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "elsewhere", "sub"]


def test_a_partial_small_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    (tmp_path / f"{OWN_PREFIX}.part").hardlink_to(elsewhere)
    SmallFiles(tmp_path).write(tmp_path / "a.json", b"a")
    assert elsewhere.read_bytes() == b"not ours"
    assert sorted(os.listdir(tmp_path)) == ["a.json", "elsewhere"]


def test_a_small_file_that_cannot_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.json"
    target.write_bytes(b"old")
    files = SmallFiles(tmp_path)
    write = os.write

    def write_half(handle: int, content: memoryview) -> int:
        if len(content) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, content[:3])

    monkeypatch.setattr(os, "write", write_half)
    with pytest.raises(OSError, match="No space"):
        files.write(target, b"new content")
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]
    files.write(target, b"new")
    assert target.read_bytes() == b"new"
