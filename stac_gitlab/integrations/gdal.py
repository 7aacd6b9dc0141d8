"""Rasters for rasterio and GDAL: over the session of a reader, or over GDAL's own HTTP."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, Self, cast
from urllib.parse import quote
from uuid import uuid4

from stac_gitlab.auth import Origin
from stac_gitlab.download.remote_content import (
    LocalContent,
    RangedContent,
    open_content,
    read_range,
)
from stac_gitlab.download.remote_file import BUFFER_SIZE, ContentFile
from stac_gitlab.download.source import Source
from stac_gitlab.errors import ConfigurationError, DownloadError, RemoteWriteError, STACGitLabError
from stac_gitlab.files.paths import is_web
from stac_gitlab.integrations.recent import Recent
from stac_gitlab.integrations.shared_reader import shared_reader
from stac_gitlab.reading.stac_io import GitLabStacIO
from stac_gitlab.redaction import Secret, redact, strip_token_parameters
from stac_gitlab.settings import expect

# Seconds for which an opened file is used again: GDAL opens one several times.
_LIFETIME = 60.0
_MOST_CONTENTS = 16
# Bytes between two ranges that are requested as well, to save a request.
_GAP = 64 * 1024
_THREADS = 8


class RasterioOpener:
    """Lets rasterio read rasters over the connections and the token of a reader.

    Only what is needed of a raster is requested, if its server supports ranges. Otherwise it is
    downloaded once into a temporary file. An opener may be used for any number of rasters and by
    several threads. It needs rasterio, the extra ``rasters``.

    Args:
        reader: The reader to use. By default pystac's default reader if it is a GitLabStacIO, or
            else one with the token of the environment.

    Raises:
        ConfigurationError: If rasterio is not installed, or `reader` is not a GitLabStacIO.

    Example::

        with rasterio.open(item.assets["image"].href, opener=RasterioOpener(reader)) as raster:
            window = raster.read(1, window=((0, 512), (0, 512)))
    """

    def __init__(self, reader: GitLabStacIO | None = None) -> None:
        abc = _rasterio().abc
        if reader is not None:
            expect("reader", reader, GitLabStacIO, wanted="a GitLabStacIO")
        # The interface by which rasterio recognises an object such as this one.
        getattr(abc, "MultiByteRangeResourceContainer", abc.FileContainer).register(type(self))
        self._named, self.reader = reader, reader or shared_reader()
        self._contents: Recent[RangedContent | LocalContent] = Recent(_LIFETIME, _MOST_CONTENTS)
        self._opened: dict[str, STACGitLabError | None] = {}

    def __repr__(self) -> str:
        return f"<RasterioOpener with {self.reader!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the contents, and without a token: a reader pickles without one.
        return type(self), (self._named,)

    def patch_url(self, href: str) -> str:
        """Return an href that ``rasterio.open`` reads with this opener, without ``opener=``.

        It is for libraries that open rasters themselves, such as ``odc.stac.load(patch_url=)``. An
        href that is no web URL is returned as it is.
        """
        return _PatchedHref(href, self) if is_web(href) else href

    # -- what rasterio calls ------------------------------------------------------------------

    def open(self, path: str, mode: str = "rb", **_: Any) -> BinaryIO:
        """Open a raster for reading.

        Raises:
            RemoteWriteError: If `mode` is one for writing.
            STACGitLabError: If it cannot be read. rasterio shows the text of that error.
        """
        if not mode.startswith("r") or "+" in mode:
            raise RemoteWriteError(f"{redact(path)}: the file can only be read.")
        try:
            content = self._content(path)
        except STACGitLabError as error:
            self._opened[path] = error
            raise
        self._opened[path] = None
        return cast("BinaryIO", _RasterFile(content))

    def isfile(self, path: str) -> bool:
        """Return whether a raster was opened; raise the error if that failed.

        GDAL asks this after a failed attempt, and for the files beside a raster. They are not
        requested.
        """
        error = self._opened.get(path)
        if error is not None:
            # rasterio says nothing about a FileNotFoundError.
            raise DownloadError(str(error)) from None
        return path in self._opened

    def isdir(self, path: str) -> bool:
        """Return False: there are no folders."""
        return False

    def ls(self, path: str) -> list[str]:
        """Return the rasters that were opened in a folder, so that GDAL looks for no others."""
        folders = (href.rpartition("/") for href in list(self._opened))
        return [name for folder, _, name in folders if folder == path.rstrip("/")]

    def mtime(self, path: str) -> int:
        """Return 0: the time does not matter for reading."""
        return 0

    def size(self, path: str) -> int:
        """Return the size of a raster in bytes."""
        return self._content(path).size if is_web(path) else 0

    def rm(self, path: str) -> None:
        """Refuse to remove a raster."""
        raise RemoteWriteError(f"{redact(path)}: the file can only be read.")

    def _content(self, href: str) -> RangedContent | LocalContent:
        known = self._contents.known(href)
        if known is not None and known.is_outdated:
            self._contents.forget(href)
        return self._contents.get(href, partial(self._open_content, href))

    def _open_content(self, href: str) -> RangedContent | LocalContent:
        self.reader.credentials.bind(href)
        name = href.partition("?")[0].rpartition("/")[2]
        return open_content(self.reader.session, Source(strip_token_parameters(href), name))


class _PatchedHref(str):
    """An href that names its opener, in the form in which ``fsspec.core.OpenFile`` does."""

    __slots__ = ("fs", "path")

    def __new__(cls, href: str, opener: RasterioOpener) -> Self:
        made = super().__new__(cls, href)
        made.path, made.fs = href, _FileSystem(opener)
        return made

    path: str
    fs: _FileSystem

    def __reduce__(self) -> tuple[Any, ...]:
        return _PatchedHref, (str(self), self.fs.open)


class _FileSystem:
    def __init__(self, opener: RasterioOpener) -> None:
        self.open = opener


class _RasterFile(io.BufferedReader):
    """A file with a position of its own, and ranges in parallel for GDAL."""

    def __init__(self, content: RangedContent | LocalContent) -> None:
        self._content = content
        super().__init__(ContentFile(content), BUFFER_SIZE)

    def get_byte_ranges(self, offsets: list[int], sizes: list[int]) -> list[bytes]:
        """Return the bytes at several positions. Ranges close to each other are one request."""
        wanted = [(start, start + size) for start, size in zip(offsets, sizes, strict=True)]
        spans: list[list[int]] = []
        for start, stop in sorted(wanted):
            if spans and start <= spans[-1][1] + _GAP:
                spans[-1][1] = max(spans[-1][1], stop)
            else:
                spans.append([start, stop])
        with ThreadPoolExecutor(min(_THREADS, len(spans))) as threads:
            read = list(threads.map(lambda span: read_range(self._content, *span), spans))
        return [
            next(
                content[start - first : stop - first]
                for (first, last), content in zip(spans, read, strict=True)
                if first <= start and stop <= last
            )
            for start, stop in wanted
        ]


@contextlib.contextmanager
def gdal_env(
    reader: GitLabStacIO, url: str, *, trust_redirects: bool = False
) -> Iterator[Callable[[str], str]]:
    """Let GDAL's own HTTP client read the files of one server, for libraries without openers.

    The token is in a header file in the memory of GDAL, and in no path, environment variable or
    dataset name. The file is gone after the ``with`` block, and exists only in this process.

    GDAL sends the header to every host that a redirect leads to. So one request tells where an href
    leads. If that is another server, GDAL gets its address instead, and no token. If not, later
    requests may still be redirected, and `trust_redirects` is needed.
    :class:`RasterioOpener` needs no such trust.

    Args:
        reader: The reader whose token to use.
        url: The URL of the server, or of one of its files.
        trust_redirects: Whether every host that the server redirects to may see the token.

    Yields:
        A function that returns the GDAL path of an href, for ``rasterio.open`` or ``patch_url=``.
        Hrefs of other servers are returned as they are. It raises a ConfigurationError if
        `trust_redirects` is needed, and a STACGitLabError if the file cannot be read.

    Raises:
        ConfigurationError: If rasterio is not installed, or an argument is not valid.

    Example::

        with gdal_env(reader, "https://hub.example.org", trust_redirects=True) as patch_url:
            raster = rasterio.open(patch_url(item.assets["image"].href))
    """
    memory_file = _rasterio().MemoryFile
    expect("reader", reader, GitLabStacIO, wanted="a GitLabStacIO")
    origin = Origin.of(url)
    if origin is None:
        raise ConfigurationError(f"{redact(url)!r} is not the URL of a server.")
    with contextlib.ExitStack() as files:
        paths: dict[Secret, str] = {}
        is_over = False

        def patch_url(href: str) -> str:
            if is_over:
                raise ConfigurationError("The `with` block of this function has ended.")
            if Origin.of(href) != origin:
                return href
            final, lines = _resolved(reader, href, trust_redirects=trust_redirects)
            if lines and lines not in paths:
                name = {"dirname": f"stac-gitlab-{uuid4().hex}", "filename": "headers.txt"}
                paths[lines] = files.enter_context(memory_file(lines.encode(), **name)).name
            header_file = f"header_file={paths[lines]}&" if lines else ""
            options = f"{header_file}use_head=no&list_dir=no&empty_dir=yes"
            return f"/vsicurl?{options}&url={quote(final, safe='')}"

        try:
            yield patch_url
        finally:
            is_over = True


def _resolved(reader: GitLabStacIO, href: str, *, trust_redirects: bool) -> tuple[str, Secret]:
    """Return the URL that an href leads to, and the lines of the header file for it."""
    reader.credentials.bind(href)
    session = reader.session
    with session.open(strip_token_parameters(href), headers={"Range": "bytes=0-0"}) as response:
        requested, final = (*response.history, response)[0].url, response.url
        if response.status_code == 200:
            raise DownloadError(
                f"{redact(href)}: the server ignores ranges, without which GDAL reads no file. Use "
                "RasterioOpener, which downloads it once."
            )
    if Origin.of(final) != Origin.of(href) and not session.credentials.allows(final):
        return final, Secret("")
    sent = session.credentials.headers_for(requested, session.dialect_of(requested).token_header)
    if sent and not trust_redirects:
        raise ConfigurationError(
            f"{redact(href)}: GDAL sends the token to every host that {Origin.of(href)} redirects "
            "to. Use RasterioOpener, which does not; or pass trust_redirects=True if no redirect "
            "of this server leads to a host that must not see the token."
        )
    return requested, Secret("".join(f"{name}: {value}\r\n" for name, value in sent.items()))


def _rasterio() -> Any:
    try:
        import rasterio.abc  # noqa: PLC0415  # optional
    except ImportError:
        raise ConfigurationError(
            "Rasters need rasterio 1.4, which is not installed: pip install 'stac-gitlab[rasters]'"
        ) from None
    return rasterio
