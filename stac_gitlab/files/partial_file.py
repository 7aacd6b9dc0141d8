"""A partial file: written beside its target, and moved onto it in one step.

Until that step the target is unchanged, even if the process is killed. The bytes are not flushed to
the disk first: after a power cut the file system may have lost them.

A partial file is locked by the process that writes it. The operating system releases the lock when
that process ends, however it ends and in whatever container it ran. A later run continues or
removes a partial file only after it got the lock. On a file system without locks it does so only
where the writer gave the file up, which the file's name says. A forked child would keep a lock of
its parent for as long as it lives, so it closes its copies of the files.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import stat
import sys
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

from stac_gitlab.errors import DownloadError
from stac_gitlab.files.disk_space import is_nearly_full

if sys.platform != "win32":
    import fcntl

OWN_PREFIX = ".stac-gitlab"
"""The beginning of the names of all files that this package makes for itself."""

# Some cluster file systems keep locks within one machine (Lustre with localflock, BeeGFS). So a
# partial file of another machine has to be unchanged for this many seconds as well.
_QUIET_ELSEWHERE = 3600.0
_MAX_RESUME_INFO = 64 * 1024
_MAX_START = 8192
_NAME = re.compile(
    rf"{re.escape(OWN_PREFIX)}-(?P<target>[0-9a-f]{{16}})-(?P<owner>kept|[0-9a-f]{{8}})"
    r"-[0-9a-f]{12}\.(?P<kind>part|json)"
)
_partial_files: weakref.WeakSet[PartialFile] = weakref.WeakSet()
_BINARY = getattr(os, "O_BINARY", 0)
_NO_LINK_NO_WAIT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


class PartialFile:
    """A file that is written beside its target. It is created when there is something to write.

    At the end of a ``with`` statement it is removed, unless it was finished or can be resumed.

    Args:
        target: The path that the finished file gets.

    Attributes:
        size: Bytes written so far.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        self._target = os.fspath(target)
        self._path = ""
        self._handle = -1
        self._has_resume_info = False
        self._is_of_parent = False
        # The first bytes, as far as they were written here.
        self._start = b""
        self.size = 0
        _partial_files.add(self)

    def leave_to_parent(self) -> None:
        """Leave the file to the process that this one was forked from, which goes on writing it.

        Closing a copy of a file does not release its lock.
        """
        self._is_of_parent |= bool(self._path)
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, content: bytes | memoryview) -> None:
        """Append `content`.

        Raises:
            OSError: If it cannot be written; the error names the partial file.
        """
        view = memoryview(content)
        handle = self._open()
        while view:
            try:
                written = os.write(handle, view)
            except OSError as error:
                error.filename = self._path
                raise
            if self.size == len(self._start):
                self._start += view[: min(written, _MAX_START - self.size)]
            self.size += written
            view = view[written:]

    def open_path(self) -> str:
        """Create the file, if it does not exist yet, and return its path."""
        self._open()
        return self._path

    def truncate(self, size: int = 0) -> None:
        """Drop everything after the first `size` bytes."""
        if size or self._path:
            handle = self._open()
            os.ftruncate(handle, size)
            os.lseek(handle, size, os.SEEK_SET)
            self._start = self._start[:size]
            self.size = size

    def read_start(self, count: int) -> bytes:
        """Return the first `count` bytes, or fewer where the file is shorter."""
        count = min(count, self.size)
        if count <= len(self._start):
            return self._start[:count]
        handle = self._open()
        os.lseek(handle, 0, os.SEEK_SET)
        start = os.read(handle, count)
        os.lseek(handle, self.size, os.SEEK_SET)
        return start

    def read_into(self, buffer: Callable[[], memoryview], start: int = 0) -> Iterator[int]:
        """Read the file from byte `start` on into one buffer after the other.

        Yields:
            The number of bytes in each buffer.
        """
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start)
            while count := file.readinto(buffer()):
                yield count

    def size_and_mtime_ns(self) -> tuple[int, int]:
        """Return size (bytes) and time of the last change (ns), as the finished file has them."""
        status = os.fstat(self._open())
        return status.st_size, status.st_mtime_ns

    def save_resume_info(self, info: Mapping[str, Any] | None) -> None:
        """Save what a later run needs to continue the file; None if it cannot be continued.

        A file with this information is kept if it is not finished.
        """
        if info is not None:
            self._open()
            with open(_sidecar_of(self._path), "w", encoding="utf-8") as file:
                json.dump(info, file)
        elif self._has_resume_info:
            remove_if_there(_sidecar_of(self._path))
        self._has_resume_info = info is not None

    def take_over(self, leftover: Leftover) -> bool:
        """Continue what another process left; return False if it is gone or in use."""
        handle = _lock_abandoned(leftover.path)
        if handle is None:
            return False
        path = self._new_path(_this_machine())
        try:
            if sys.platform == "win32":
                # Windows renames no open file, not even one that is open in another process.
                os.close(handle)
                os.replace(leftover.path, path)
                handle = os.open(path, os.O_RDWR | _BINARY)
            else:
                os.replace(leftover.path, path)
        except OSError:
            # Gone in the meantime, or in a folder where only its owner may rename it.
            with contextlib.suppress(OSError):
                os.close(handle)
            return False
        remove_if_there(_sidecar_of(leftover.path))
        self.discard()
        self._path, self._handle = path, handle
        self.size = os.lseek(handle, 0, os.SEEK_END)
        return True

    def finish(self) -> None:
        """Move the file onto its target."""
        self._open()
        with contextlib.suppress(OSError):
            # Permissions only: a set-user-id bit vouches for the bytes that it is replaced with.
            # They are optional: there are file systems without permissions.
            os.chmod(self._path, os.stat(self._target).st_mode & 0o777)
        sidecar = _sidecar_of(self._path)
        self._move(self._target)
        if self._has_resume_info:
            remove_if_there(sidecar)

    def discard(self) -> None:
        """Remove the file, or give it up to a later run if it can be resumed.

        On a disk that is nearly full, it is removed: others need the space.
        """
        if not self._path:
            return
        sidecar = _sidecar_of(self._path)
        is_kept = self._has_resume_info and self.size
        if is_kept and not is_nearly_full(os.path.dirname(self._path) or "."):
            kept = self._new_path("kept")
            with contextlib.suppress(FileNotFoundError):
                self._move(kept)
                os.replace(sidecar, _sidecar_of(kept))
        else:
            self._close()
            remove_if_there(self._path)
            self.save_resume_info(None)
        self._forget()

    def _open(self) -> int:
        if self._is_of_parent:
            raise DownloadError(
                f"{self._target!r} was begun in another process, of which this one is a fork. Only "
                "that process can finish it. Begin it anew in this one."
            )
        while self._handle < 0:
            path = self._new_path(_this_machine())
            # Created with the usual permissions: the user's umask decides who may read it.
            self._handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY, 0o666)
            # Another process may have removed it as abandoned before it was locked.
            if _lock(self._handle) is not False and _is_at(path, self._handle):
                self._path = path
            else:
                self._close()
        return self._handle

    def _move(self, path: str) -> None:
        """Move the file and close it. It stays locked until it is moved, or others may take it."""
        if sys.platform == "win32":
            self._close()
        os.replace(self._path, path)
        self._close()
        self._path = ""

    def _close(self) -> None:
        if self._handle >= 0:
            # Forgotten first: a child forked now must not close another file with this number.
            handle, self._handle = self._handle, -1
            os.close(handle)

    def _forget(self) -> None:
        self._close()
        self._path, self._has_resume_info, self.size, self._start = "", False, 0, b""

    def _new_path(self, owner: str) -> str:
        folder, name = os.path.split(self._target)
        name = f"{OWN_PREFIX}-{_mark(name)}-{owner}-{os.urandom(6).hex()}.part"
        return os.path.join(folder, name)


@dataclass(frozen=True)
class Leftover:
    """A partial file that no process writes to any more, or only the sidecar of one (size 0)."""

    path: str
    size: int

    def resume_info(self) -> dict[str, Any] | None:
        """Return what its writer saved, or None if that is missing or damaged."""
        try:
            with open_own(_sidecar_of(self.path)) as file:
                info = json.loads(file.read(_MAX_RESUME_INFO))
        except (OSError, ValueError, RecursionError):
            return None
        return info if isinstance(info, dict) else None

    def remove(self) -> None:
        """Remove it, unless a process took it over in the meantime.

        Raises:
            OSError: If the folder does not allow that.
        """
        if os.path.lexists(self.path):
            handle = _lock_abandoned(self.path)
            if handle is None:
                return
            try:
                if sys.platform != "win32":
                    remove_if_there(self.path)
            finally:
                os.close(handle)
            if sys.platform == "win32":
                remove_if_there(self.path)
        remove_if_there(_sidecar_of(self.path))


def leftovers_in(folder: str | os.PathLike[str]) -> dict[str, list[Leftover]]:
    """Return what earlier runs left in `folder`, for :func:`leftovers_for`."""
    names: dict[str, dict[str, str]] = defaultdict(dict)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if match := _NAME.fullmatch(entry.name):
                    path = f"{entry.path.rpartition('.')[0]}.part"
                    names[path][match["kind"]] = match["target"]
    except OSError:
        # There is no folder, or it cannot be read: then nothing in it can be taken over.
        return {}
    found: dict[str, list[Leftover]] = defaultdict(list)
    for path, kinds in names.items():
        if "part" not in kinds:
            found[kinds["json"]].append(Leftover(path, 0))
        elif (handle := _lock_abandoned(path)) is not None:
            found[kinds["part"]].append(Leftover(path, os.fstat(handle).st_size))
            os.close(handle)
    return found


def leftovers_for(
    target: str | os.PathLike[str], found: Mapping[str, list[Leftover]]
) -> list[Leftover]:
    """Return those of the leftovers in its folder that are for `target`."""
    return found.get(_mark(os.path.basename(os.fspath(target))), [])


def remove_leftovers(leftovers: Iterable[Leftover]) -> None:
    """Remove leftovers, as far as the folder allows it and no process has taken them over."""
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            leftover.remove()


def remove_if_there(path: str) -> None:
    """Remove a file, which may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def open_own(path: str | os.PathLike[str]) -> BinaryIO:
    """Open for reading what should be a file of ours, but may have been put there by anyone.

    Raises:
        OSError: If it cannot be opened, or is not a regular file: a link leads elsewhere, and
            opening a pipe would wait for a writer.
    """
    handle = os.open(path, os.O_RDONLY | _BINARY | _NO_LINK_NO_WAIT)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(f"{os.fspath(path)!r} is not a regular file")
    return os.fdopen(handle, "rb")


def write_atomically(name: str, content: bytes) -> None:
    """Write a file completely or not at all. Missing folders are created."""
    # A link is written through, not replaced: its owner put it there on purpose.
    target = os.path.realpath(name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    replace_file(target, content)


def replace_file(target: str | os.PathLike[str], content: bytes) -> None:
    """Write a file, or replace a file or link, in one step."""
    with PartialFile(target) as part:
        part.write(content)
        part.finish()


class SmallFiles:
    """Writes small files below a folder that no other process writes to meanwhile.

    All go through the same partial file, which needs neither a lock nor a name of its own: creating
    many files is limited by the number of system calls. Use it in one thread at a time.

    Args:
        folder: The folder. What a killed process left there is removed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._path = os.path.join(folder, f"{OWN_PREFIX}.part")
        remove_if_there(self._path)

    def write(self, target: str | os.PathLike[str], content: bytes) -> None:
        """Write a file, or replace a file or link, in one step."""
        handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _BINARY, 0o666)
        try:
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(handle, view) :]
            finally:
                os.close(handle)
            os.replace(self._path, target)
        except BaseException:
            remove_if_there(self._path)
            raise


def _lock_abandoned(path: str) -> int | None:
    """Open and lock a partial file that no process writes to; return None if one may do so."""
    match = _NAME.fullmatch(os.path.basename(path))
    try:
        handle = os.open(path, os.O_RDWR | _BINARY | _NO_LINK_NO_WAIT)
    except OSError:
        # Gone, a folder, a link, or a file of a user who does not share it.
        return None
    status, locked = os.fstat(handle), _lock(handle)
    owner = "" if match is None else match["owner"]
    is_given_up = owner == "kept" or (
        locked is True
        and (owner == _this_machine() or time.time() - status.st_mtime > _QUIET_ELSEWHERE)
    )
    # Through a second name of it, something that is not ours would be written to.
    is_ours = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1
    if is_given_up and is_ours and locked is not False and _is_at(path, handle):
        return handle
    os.close(handle)
    return None


def _lock(handle: int) -> bool | None:
    """Lock an open file. Return False if it is locked, None if the file system has no locks."""
    if sys.platform == "win32":
        # An open file can neither be renamed nor removed there, which serves as well as a lock.
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: str, handle: int) -> bool:
    """Tell whether an open file is still the one with this path."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except OSError:
        return False


@functools.cache
def _this_machine() -> str:
    """Return a mark of the running kernel, within which locks always work."""
    kernel = ""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", "rb") as file:
        kernel = file.read().decode()
    return _mark(kernel)[:8]


def _mark(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _sidecar_of(path: str) -> str:
    return f"{path.removesuffix('.part')}.json"


def _leave_files_to_parent() -> None:
    for part in list(_partial_files):
        part.leave_to_parent()


if hasattr(os, "register_at_fork"):  # Windows has no fork.
    os.register_at_fork(after_in_child=_leave_files_to_parent)
