"""Assets described from their files: size, checksum, media type and roles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from mimetypes import MimeTypes
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import pystac
from pystac.extensions.file import FileExtension

from stac_gitlab.download.assets import check_asset
from stac_gitlab.download.content_version import ByteRange
from stac_gitlab.download.downloader import STACDownloader
from stac_gitlab.download.source import Locator, Source
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError, checksum_of_file
from stac_gitlab.files.paths import is_local, local_path
from stac_gitlab.http.body import is_encoded
from stac_gitlab.http.head import is_chunked, length_in
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.reading.stac_io import GitLabStacIO, reader_of
from stac_gitlab.redaction import quoted
from stac_gitlab.settings import dict_of, expect, path_of

RemoteFiles = Literal["skip", "headers", "download"]
_REMOTE = ("skip", "headers", "download")
# A pointer of Git LFS or DVC is smaller. A download tells it from the file.
_MAX_POINTER = 1024
# What many servers say of files that they do not know.
_UNKNOWN_TYPES = frozenset({"application/octet-stream", "binary/octet-stream", "text/plain"})
# By the end of the file name. The tables of Python and of the system lack these, or differ.
_MEDIA_TYPES = {
    ".fgb": pystac.MediaType.FLATGEOBUF,
    ".geojson": pystac.MediaType.GEOJSON,
    ".gpkg": pystac.MediaType.GEOPACKAGE,
    ".h5": pystac.MediaType.HDF5,
    ".hdf5": pystac.MediaType.HDF5,
    ".ipynb": "application/x-ipynb+json",
    ".json": pystac.MediaType.JSON,
    ".jp2": pystac.MediaType.JPEG2000,
    ".kml": pystac.MediaType.KML,
    ".md": "text/markdown",
    ".nc": pystac.MediaType.NETCDF,
    ".onnx": "application/onnx",
    ".parquet": pystac.MediaType.VND_APACHE_PARQUET,
    ".pmtiles": pystac.MediaType.VND_PMTILES,
    ".pt": "application/octet-stream",
    ".tif": pystac.MediaType.GEOTIFF,
    ".tiff": pystac.MediaType.GEOTIFF,
    ".xml": pystac.MediaType.XML,
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_OTHER_MEDIA_TYPES = MimeTypes()
_ROLES: Mapping[str, tuple[str, ...]] = {
    "*thumb*": ("thumbnail",),
    "*preview*": ("overview",),
    "*quicklook*": ("overview",),
    "*readme*": ("metadata",),
    "*license*": ("metadata",),
    "*.xml": ("metadata",),
    "*.yaml": ("metadata",),
    "*.yml": ("metadata",),
    "*": ("data",),
}


@dataclass(frozen=True)
class _Facts:
    """What is known about the file of an asset; None for what is not."""

    size: int | None = None
    checksum: str | None = None
    media_type: str | None = None


def describe_assets(
    item: pystac.Item | pystac.Collection,
    *,
    files: Mapping[str, str | os.PathLike[str]] | None = None,
    remote: RemoteFiles = "skip",
    roles: Mapping[str, str | Iterable[str]] | None = None,
    stac_io: GitLabStacIO | None = None,
) -> None:
    """Add ``file:size``, ``file:checksum``, media types and roles to the assets of an item.

    Size and checksum are those of the bytes, and replace others. A media type and roles are added
    only where an asset has none: they follow from the names of its file and its key.

    Args:
        item: The item or collection. It is changed.
        files: Local copies of assets, by asset key, such as ``report.paths`` after a download.
        remote: What to do about assets that are neither local nor among `files`: ``"skip"`` looks
            at their names only, ``"headers"`` asks the server for the size, and ``"download"``
            reads the whole file. Files up to 1024 bytes are downloaded for ``"headers"``, too.
        roles: Roles by glob, instead of the usual ones. A glob is compared with the asset key and
            with the file name, in lower case; the first that matches counts.
        stac_io: The reader for ``"headers"`` and ``"download"``; as for ``STACDownloader``.

    Raises:
        ConfigurationError: If an argument makes no sense, or a local file cannot be read.
        DownloadError: If a download fails, or is not what the metadata describe.
        HTTPStatusError: If a server responds with an error to ``"headers"``.
        NetworkError: If there is no connection. After an error, the item is unchanged.

    Source: STAC file extension 2.1.0; the checksum is a SHA-256 multihash.

    Example:
        >>> from datetime import UTC, datetime
        >>> import pystac
        >>> from stac_gitlab import describe_assets
        >>> item = pystac.Item("lakes", None, None, datetime(2024, 1, 5, tzinfo=UTC), {})
        >>> item.add_asset("data", pystac.Asset("https://data.example.org/lakes.csv"))
        >>> describe_assets(item)
        >>> item.assets["data"].to_dict()["type"]
        'text/csv'
    """
    expect("item", item, (pystac.Item, pystac.Collection), wanted="an item or a collection")
    if remote not in _REMOTE:
        choices = ", ".join(map(repr, _REMOTE))
        raise ConfigurationError(f"remote={remote!r}: choose from {choices}.")
    rules = _ROLES if roles is None else _checked_rules(roles)
    copies = {
        key: path_of(f"files[{key!r}]", path) for key, path in dict_of("files", files or {}).items()
    }
    unknown = [key for key in copies if key not in item.assets]
    if unknown:
        raise ConfigurationError(f"files: the item has no asset {quoted(unknown[0])}.")
    downloader = STACDownloader(stac_io=stac_io)
    facts: dict[str, _Facts] = {}
    to_download = []
    for key, asset in item.assets.items():
        path, source = _place_of(item, key, asset, copies, downloader)
        known = None
        if path is not None:
            known = _facts_of(path, key)
        elif source is not None and remote != "skip":
            known = (
                _facts_in_headers(downloader.stac_io.session, source)
                if remote == "headers"
                else None
            )
            if known is None:
                to_download.append(key)
        facts[key] = known or _Facts()
    facts |= _downloaded(item, to_download, downloader)
    for key, asset in item.assets.items():
        _describe(asset, key, facts[key], rules)


def _checked_rules(roles: Mapping[str, str | Iterable[str]]) -> dict[str, tuple[str, ...]]:
    rules = {}
    for glob, named in dict_of("roles", roles).items():
        names = (named,) if isinstance(named, str) else named
        expect(f"roles[{glob!r}]", names, Iterable, wanted="a role or several")
        rules[glob.lower()] = tuple(names)
        for name in rules[glob.lower()]:
            expect(f"roles[{glob!r}]", name, str, wanted="a role or several")
    return rules


def _place_of(
    item: pystac.Item | pystac.Collection,
    key: str,
    asset: pystac.Asset,
    copies: Mapping[str, str],
    downloader: STACDownloader,
) -> tuple[Path | None, Source | None]:
    """Return the local file of an asset, or else its source if it can be downloaded."""
    check_asset(key, asset)
    if key in copies:
        return Path(copies[key]), None
    if is_local(asset.href) and item.get_self_href() is None and reader_of(item) is None:
        # Made by the caller, and not read from a server, which must not choose local files.
        return Path(local_path(asset.href)), None
    if not is_local(asset.href) and not asset.href.lower().startswith(("http:", "https:")):
        return None, None
    session = downloader.stac_io.session
    source, path = Locator(session, verify=False).locate(item, key, asset)
    if path is None and session.dialect_of(source.url).generates(source.url):
        # A document, whose bytes depend on who reads it.
        return None, None
    return path, source


def _facts_of(path: Path, key: str) -> _Facts:
    try:
        size, checksum = checksum_of_file(path)
    except OSError as error:
        problem = error.strerror or error
        raise ConfigurationError(
            f"{quoted(key)}: the file {str(path)!r} cannot be read: {problem}."
        ) from None
    return _Facts(size, str(checksum))


def _facts_in_headers(session: GitLabSession, source: Source) -> _Facts | None:
    """Return what the headers of a response say about a file; None if it has to be downloaded.

    One byte is requested, because servers such as SharingHub refuse HEAD.
    """
    first = {"Range": "bytes=0-0"}
    with session.open(source.url, headers=first, statuses=frozenset({416})) as response:
        part, headers = ByteRange.of(response), response.headers
        media_type = headers.get("Content-Type", "").strip()
        size = None if part is None else part.size
        if response.status_code == 200 and not is_encoded(response) and not is_chunked(headers):
            size = length_in(headers)
        # What has no byte 0 is empty. Its headers are those of an error.
        is_page = media_type.lower().startswith("text/html")
        if response.status_code == 416 or is_page or (size is not None and size <= _MAX_POINTER):
            return None
        checksum = None
        with suppress(UnknownChecksumError):
            checksum = str(Checksum.of_sha256(session.sha256_of(headers, size) or ""))
    is_telling = media_type and media_type.partition(";")[0].strip().lower() not in _UNKNOWN_TYPES
    return _Facts(size, checksum, media_type if is_telling else None)


def _downloaded(
    item: pystac.Item | pystac.Collection, keys: list[str], downloader: STACDownloader
) -> dict[str, _Facts]:
    """Return the facts of assets that are downloaded for that, and removed again."""
    if not keys:
        return {}
    with TemporaryDirectory(prefix="stac-gitlab-") as folder:
        report = downloader.download_assets(item, folder, roles=None, include=keys)
        return {key: _facts_of(report.paths[key], key) for key in keys}


def _describe(
    asset: pystac.Asset, key: str, facts: _Facts, rules: Mapping[str, tuple[str, ...]]
) -> None:
    name = unquote(urlsplit(asset.href).path) if not is_local(asset.href) else asset.href
    names = [key.lower(), name.replace("\\", "/").rpartition("/")[2].lower()]
    if facts.size is not None or facts.checksum is not None:
        file = FileExtension.ext(asset, add_if_missing=True)
        # The checksum of a version with another size would be wrong.
        checksum = file.checksum if file.size == facts.size else None
        file.size, file.checksum = facts.size, facts.checksum or checksum
    if asset.media_type is None:
        asset.media_type = next(filter(None, map(_media_type, names[::-1])), facts.media_type)
    if not asset.roles:
        matching = (
            given for glob, given in rules.items() if any(fnmatchcase(n, glob) for n in names)
        )
        found = next(matching, ())
        if found:
            asset.roles = list(found)


def _media_type(name: str) -> Any:
    extension = os.path.splitext(name)[1]
    if extension in _MEDIA_TYPES:
        return str(_MEDIA_TYPES[extension])
    media_type, encoding = _OTHER_MEDIA_TYPES.guess_type(f"file{extension}")
    return "application/gzip" if encoding == "gzip" else media_type
