"""A file in the making: written beside its target, and moved onto it in one step.

Whatever happens before that step, a kill included, leaves what stood there untouched. The bytes
are not flushed to the disk first: after a power cut the file system may have lost them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

__all__ = ["OWN_PREFIX", "Part", "part_beside"]

OWN_PREFIX = ".stac-gitlab"
"""How the names of our own temporary files begin."""


class Part:
    """The file in the making.

    Attributes:
        size: Bytes written so far.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        folder = os.path.dirname(target)
        self._path = os.path.join(folder, f"{OWN_PREFIX}-{secrets.token_hex(8)}.part")
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
        # Created as any other file would be, so that the user's umask decides who may read it.
        self._handle = os.open(self._path, flags, 0o666)
        self.size = 0

    def write(self, content: bytes | memoryview) -> None:
        """Append `content`."""
        view = memoryview(content)
        while view:
            written = os.write(self._handle, view)
            self.size += written
            view = view[written:]

    def restart(self) -> None:
        """Forget everything written so far."""
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.ftruncate(self._handle, 0)
        self.size = 0

    def beginning(self, count: int) -> bytes:
        """Return up to `count` bytes from the start of what was written."""
        with open(self._path, "rb") as file:
            return file.read(count)

    def finish(self) -> None:
        """Move the file onto its target."""
        self._close()
        with contextlib.suppress(FileNotFoundError):
            os.chmod(self._path, os.stat(self._target).st_mode & 0o7777)
        os.replace(self._path, self._target)

    def discard(self) -> None:
        """Remove what was written, if it was not moved."""
        self._close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


@contextlib.contextmanager
def part_beside(target: str | os.PathLike[str]) -> Iterator[Part]:
    """Give a :class:`Part` for `target`, and discard it unless it was finished.

    Raises:
        OSError: If the folder of `target` cannot be written to.
    """
    part = Part(os.fspath(target))
    try:
        yield part
    finally:
        part.discard()
