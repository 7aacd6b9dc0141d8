"""A file in the making: written beside its target, and moved onto it in one step.

Whatever happens before that step, a kill included, leaves what stood there untouched. The bytes
are not flushed to the disk first: after a power cut the file system may have lost them.

The name of a part tells whose it is: which target it is for, and which process writes it. A later
run takes over what a process left behind only where that process gave it up or is gone, and takes
it by renaming it, which only one taker can do. Nobody writes to a file that another may write to,
so nothing rests on locks.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import socket
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

OWN_PREFIX = ".stac-gitlab"
"""How the names of our own files begin."""


# Of a process on another machine nobody can tell whether it still runs; after a day it does not.
_ABANDONED_AFTER = 24 * 3600.0
_MAX_DESCRIPTION = 64 * 1024
_NAME = re.compile(
    rf"{re.escape(OWN_PREFIX)}-(?P<target>[0-9a-f]{{16}})-(?P<owner>kept|[0-9a-f]{{8}}\.\d+)"
    r"-[0-9a-f]{12}\.part"
)


class PartialFile:
    """The file in the making. It is created when there is something to write.

    In a ``with`` statement it is discarded at the end, unless it was finished.

    Args:
        target: The path that it will have.

    Attributes:
        size: Bytes written so far.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._folder, self._name = os.path.split(target)
        self._path = self._named(f"{_machine()}.{os.getpid()}")
        self._handle = -1
        self._exists = False
        self._described = False
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()

    def write(self, content: bytes | memoryview) -> None:
        """Append `content`."""
        view = memoryview(content)
        while view:
            written = os.write(self._open(), view)
            self.size += written
            view = view[written:]

    def open_path(self) -> str:
        """Return the path of the file, which exists then, for several to write into."""
        self._open()
        return self._path

    def restart(self) -> None:
        """Forget everything written so far."""
        if self.size:
            self.cut(0)

    def cut(self, size: int) -> None:
        """Forget everything behind the first `size` bytes."""
        handle = self._open()
        os.ftruncate(handle, size)
        os.lseek(handle, size, os.SEEK_SET)
        self.size = size

    def beginning(self, count: int) -> bytes:
        """Return up to `count` bytes from the start of what was written."""
        if not self.size:
            return b""
        handle = self._open()
        os.lseek(handle, 0, os.SEEK_SET)
        start = os.read(handle, count)
        os.lseek(handle, self.size, os.SEEK_SET)
        return start

    def read_back(self, buffer: Callable[[], memoryview], start: int = 0) -> Iterator[int]:
        """Read what was written, from a byte on, into one buffer after the other.

        Yields:
            How much each holds.
        """
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start)
            while count := file.readinto(buffer()):
                yield count

    def stamp(self) -> tuple[int, int]:
        """Return size in bytes and time of the last change in ns, as the finished file has them."""
        status = os.fstat(self._open())
        return status.st_size, status.st_mtime_ns

    def describe(self, description: Mapping[str, Any] | None) -> None:
        """Write down what a later run has to know to continue; None if it cannot.

        A described part is not discarded but kept.
        """
        if description is None:
            if self._described:
                _remove(_description_of(self._path))
            self._described = False
            return
        with open(_description_of(self._path), "w", encoding="utf-8") as file:
            json.dump(description, file)
        self._described = True

    def take_over(self, leftover: Leftover) -> bool:
        """Continue what another process left behind; tell whether it was still there."""
        try:
            os.replace(leftover.path, self._path)
        except FileNotFoundError:
            return False
        _remove(_description_of(leftover.path))
        self._close()
        self._exists = True
        self._handle = os.open(self._path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self.size = os.lseek(self._handle, 0, os.SEEK_END)
        return True

    def finish(self) -> None:
        """Move the file onto its target."""
        self._open()
        self._close()
        with contextlib.suppress(FileNotFoundError):
            # Not more than the permissions: a set-user-id bit vouches for the bytes that go.
            os.chmod(self._path, os.stat(self._target).st_mode & 0o777)
        os.replace(self._path, self._target)
        self._exists = False
        self.describe(None)

    def discard(self) -> None:
        """Remove what was written, unless it was moved, or is worth keeping for a later run."""
        self._close()
        if self._described and self.size:
            kept = self._named("kept")
            with contextlib.suppress(FileNotFoundError):
                os.replace(_description_of(self._path), _description_of(kept))
                os.replace(self._path, kept)
        else:
            if self._exists:
                _remove(self._path)
            self.describe(None)

    def _open(self) -> int:
        if self._handle < 0:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
            # Created as any other file would be: the user's umask decides who may read it.
            self._handle = os.open(self._path, flags, 0o666)
            self._exists = True
        return self._handle

    def _named(self, owner: str) -> str:
        name = f"{OWN_PREFIX}-{_mark(self._name)}-{owner}-{os.urandom(6).hex()}.part"
        return os.path.join(self._folder, name)

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def partial_file_for(target: str | os.PathLike[str]) -> PartialFile:
    """Return a :class:`Part` for `target`, to be used in a ``with`` statement."""
    return PartialFile(os.fspath(target))


@dataclass(frozen=True)
class Leftover:
    """A part that no process writes to any more."""

    path: str
    size: int

    def description(self) -> dict[str, Any] | None:
        """Return what its writer wrote down, or None if nothing can be made of it."""
        try:
            with open_own(_description_of(self.path)) as file:
                description = json.loads(file.read(_MAX_DESCRIPTION))
        except (OSError, ValueError, RecursionError):
            return None
        return description if isinstance(description, dict) else None

    def remove(self) -> None:
        """Remove it."""
        _remove(self.path)
        _remove(_description_of(self.path))


def leftovers_in(folder: str | os.PathLike[str]) -> dict[str, list[Leftover]]:
    """Return what earlier runs left in `folder`, by the marks of the names they are for."""
    found: dict[str, list[Leftover]] = defaultdict(list)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is None:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    # Written through a link, or as another name of a file that is elsewhere, a part
                    # would change what is not ours.
                    is_ours = stat.S_ISREG(status.st_mode) and status.st_nlink <= 1
                    if is_ours and _is_given_up(match["owner"], status.st_mtime):
                        found[match["target"]].append(Leftover(entry.path, status.st_size))
    except OSError:
        # No folder, or none that can be read: then nothing can be taken over from it either.
        pass
    return found


def open_own(path: str | os.PathLike[str]) -> BinaryIO:
    """Open for reading what should be a file of ours, but may have been put there by anyone.

    Raises:
        OSError: If it cannot be opened, or is no plain file: a link leads elsewhere, and a pipe
            would have to be waited for.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(f"{os.fspath(path)!r} is no plain file")
    return os.fdopen(handle, "rb")


def leftovers_for(
    target: str | os.PathLike[str], found: Mapping[str, list[Leftover]]
) -> list[Leftover]:
    """Return those of the leftovers in its folder that are for `target`."""
    return found.get(_mark(os.path.basename(os.fspath(target))), [])


def _is_given_up(owner: str, changed: float) -> bool:
    if owner == "kept" or time.time() - changed > _ABANDONED_AFTER:
        return True
    machine, _, number = owner.partition(".")
    if machine != _machine() or os.name == "nt":
        return False
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def _mark(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@functools.cache
def _machine() -> str:
    """Return a mark of this machine and the name space that its process numbers belong to."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return _mark(f"{socket.gethostname()}/{space}")[:8]


def _description_of(path: str) -> str:
    return f"{path.removesuffix('.part')}.json"


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def write_whole(name: str, content: bytes) -> None:
    """Write a file completely or not at all. Missing folders are created."""
    # A link is written through, not replaced: its owner put it there on purpose.
    target = os.path.realpath(name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with partial_file_for(target) as part:
        part.write(content)
        part.finish()
