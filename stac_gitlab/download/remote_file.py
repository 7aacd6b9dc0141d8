"""An asset opened like a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO, cast

import pystac

from stac_gitlab.download.assets import HasAssets, check_asset
from stac_gitlab.download.remote_content import (
    BlockReader,
    LocalContent,
    RangedContent,
    open_content,
)
from stac_gitlab.download.source import Locator, Source, Verify
from stac_gitlab.errors import (
    AssetNotFoundError,
    ConfigurationError,
    DownloadError,
)
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import printable, quoted
from stac_gitlab.settings import expect

BUFFER_SIZE = 8192
"""Bytes that are copied at a time out of a block."""


def open_asset(
    session: GitLabSession, asset: pystac.Asset, item: HasAssets | None, verify: Verify
) -> BinaryIO:
    """Open an asset for reading.

    Raises:
        ConfigurationError: If an argument is not valid.
        DownloadError: If the file is not what the metadata describe; or if the server does not
            support ranges, and the temporary file cannot be written.
        HTTPStatusError: If the server responds with an error.
        NetworkError: If there is no connection.
    """
    expect("asset", asset, pystac.Asset, wanted="an asset")
    owner = item or asset.owner
    if owner is None or not hasattr(owner, "assets"):
        raise ConfigurationError("This asset belongs to no item: pass item= as well.")
    key = next((key for key, a in owner.assets.items() if a is asset), None)
    if key is None:
        raise AssetNotFoundError(f"{printable(repr(owner))} has no such asset.")
    check_asset(key, asset)
    source, path = Locator(session, verify=verify).locate(owner, key, asset)
    if path is None:
        return file_of(open_content(session, source))
    return open_local(source, path)


def open_local(source: Source, path: Path) -> BinaryIO:
    """Open an asset that is a local file."""
    try:
        return path.open("rb")
    except OSError as error:
        raise DownloadError(
            f"{quoted(source.key)}: {str(error.filename)!r} cannot be opened: "
            f"{error.strerror or error}."
        ) from error


def file_of(content: RangedContent | LocalContent) -> BinaryIO:
    """Return a file over remote content, with a position of its own."""
    if isinstance(content, LocalContent):
        return content.detach()
    return cast("BinaryIO", io.BufferedReader(ContentFile(content), BUFFER_SIZE))


class ContentFile(io.RawIOBase):
    """A file over remote content, which others may share."""

    def __init__(self, content: RangedContent | LocalContent) -> None:
        self._size = content.size
        self._content = content if isinstance(content, LocalContent) else BlockReader(content)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if whence not in bases:
            raise ValueError(f"whence={whence}: choose 0, 1 or 2")
        if bases[whence] + offset < 0:
            raise ValueError(f"a file has no position {bases[whence] + offset}")
        self._position = bases[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = self._content.read_into(self._position, memoryview(buffer).cast("B"))
        self._position += count
        return count

    def readall(self) -> bytes:
        # The base class reads some kilobytes at a time.
        content = bytearray(max(0, self._size - self._position))
        view = memoryview(content)
        while view:
            view = view[self.readinto(view) :]
        return bytes(content)
