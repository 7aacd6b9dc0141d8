"""Files of fsspec over remote content."""

from __future__ import annotations

from typing import Any

from fsspec.caching import BaseCache, register_cache
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from stac_gitlab.download.remote_content import (
    BlockReader,
    LocalContent,
    RangedContent,
    read_range,
)


class BlockCache(BaseCache):  # type: ignore[misc]  # fsspec has no types
    """The blocks of a file as the rest of this package reads them."""

    name = "stacs"
    content: RangedContent | LocalContent
    _blocks: BlockReader | None = None

    def _fetch(self, start: int | None, stop: int | None) -> bytes:
        start = start or 0
        stop = self.size if stop is None else min(stop, self.size)
        if isinstance(self.content, LocalContent):
            return read_range(self.content, start, stop)
        self._blocks = self._blocks or BlockReader(self.content)
        result = bytearray(max(0, stop - start))
        view = memoryview(result)
        while view:
            view = view[self._blocks.read_into(stop - len(view), view) :]
        return bytes(result)


register_cache(BlockCache, clobber=True)


class AssetFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A file of fsspec over remote content."""

    def __init__(
        self,
        fs: AbstractFileSystem,
        path: str,
        content: RangedContent | LocalContent,
        **options: Any,
    ) -> None:
        self._content = content
        super().__init__(fs, path, size=content.size, **options)
        if isinstance(self.cache, BlockCache):
            self.cache.content = content

    def _fetch_range(self, start: int, end: int) -> bytes:
        return read_range(self._content, start, end)
