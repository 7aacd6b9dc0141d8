"""The files of the items of a mirror: written one after the other, or in threads on a slow disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from stac_gitlab.download.local_copy import ToJSON, replace_if_changed, write_document
from stac_gitlab.errors import DownloadError
from stac_gitlab.files.partial_file import SmallFiles

# Seconds for one file. A local disk takes a file in less time than another thread needs to begin. A
# file system in the network lets its user wait several times for each file.
_LONG_WAIT = 0.002
_THREADS = 8


@dataclass(frozen=True)
class ItemFile:
    """The file of an item.

    Attributes:
        path: Its path below the folder of the mirror.
        document: Its content.
        is_new: Whether the mirror has no such file.
    """

    path: str
    document: dict[str, Any]
    is_new: bool


class ItemWriter:
    """Writes the files of items below a folder that no other process writes to meanwhile.

    Args:
        folder: The folder.
        to_json: Returns a document as JSON.
    """

    def __init__(self, folder: Path, to_json: ToJSON) -> None:
        self._folder = folder
        self._to_json = to_json
        self._new_files = SmallFiles(folder)
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._threads.shutdown()

    def write(self, files: Sequence[ItemFile]) -> list[int | DownloadError]:
        """Write files; return the size of each in bytes, or why it cannot be written."""
        if self._threads is not None:
            return list(self._threads.map(partial(self._write, new=replace_if_changed), files))
        started = time.perf_counter() - time.thread_time()
        written = [self._write(file, new=self._new_files.write) for file in files]
        waited = time.perf_counter() - time.thread_time() - started
        if waited > _LONG_WAIT * len(files):
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="stac-gitlab-mirror")
        return written

    def _write(self, file: ItemFile, new: Callable[[Path, bytes], None]) -> int | DownloadError:
        write = new if file.is_new else replace_if_changed
        try:
            return write_document(
                self._folder,
                file.path,
                "the item",
                lambda: file.document,
                self._to_json,
                write=write,
            )
        except DownloadError as error:
            return error
