"""A file to bring: where it comes from, what is promised of it, and whether what came is it.

What comes in its place may be cut, damaged, endless, a pointer to the file, or a page about it.
"""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pystac
import requests
from pystac.utils import make_absolute_href, safe_urlparse

from stac_gitlab.auth import Origin
from stac_gitlab.download.assets import HasAssets
from stac_gitlab.errors import (
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    LFSPointerError,
    STACGitLabError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.files.paths import is_local_path, is_web
from stac_gitlab.http.decoding import is_decodable
from stac_gitlab.http.responses import error_for_page, is_html
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.http.transport import is_well_framed
from stac_gitlab.redaction import quoted, redact, strip_token_parameters

POINTER_SIZE = 1024
"""Bytes that no pointer has: what is smaller may be one, and not the file."""


PAGE_START = 8192
"""Bytes that show whether something is a page."""


_LFS_POINTER = re.compile(
    rb"version https://(?:git-lfs\.github\.com|hawser\.github\.com)/spec/v1\r?\n"
)
_DVC_POINTER = re.compile(rb"(?:^|\n)outs:\s*\n(?:\s*-)?\s+(?:md5|etag|size|path|hash):")


@dataclass(frozen=True)
class Source:
    """Where a file comes from, and what is known about it.

    Attributes:
        url: Where to ask for it.
        key: How to call it in messages.
        size: Bytes that it has to have, from the metadata.
        checksum: What it has to hash to, from the metadata.
        media_type: Its media type, from the metadata.
    """

    url: str
    key: str
    size: int | None = None
    checksum: Checksum | None = None
    media_type: str | None = None

    # -- before its bytes are taken -----------------------------------------------------------

    def check_body(self, response: requests.Response) -> None:
        """Check that the body of an answer can be decoded, and that its end can be found."""
        if not is_decodable(response):
            encoding = redact(response.headers["Content-Encoding"])
            raise DownloadError(
                f"{quoted(self.key)}: the server sends it in an encoding that cannot be "
                "undone here "
                f"({encoding[:80]!r}), although none was asked for."
            )
        if not is_well_framed(response):
            raise DownloadError(
                f"{quoted(self.key)}: the server does not say clearly where the file ends (its "
                "headers Content-Length and Transfer-Encoding)."
            )

    def check_announced(self, total: int | None) -> None:
        """Check that the server announces as many bytes as the metadata promise."""
        if self.size not in (None, total) and total:
            raise IncompleteDownloadError(
                f"{quoted(self.key)}: the server announces {total} bytes, the metadata promise "
                f"{self.size}. The file has changed since the metadata were written, or something "
                "else is served in its place."
            )

    def check_limit(self, size: int, allowed: int | None) -> None:
        """Check that there are not more bytes than the caller allows."""
        if allowed is not None and size > allowed:
            raise DownloadError(
                f"{quoted(self.key)}: the file is larger than {allowed} bytes. If you expect that, "
                "raise Limits(file_bytes=)."
            )

    def error_for_page(self, response: requests.Response, start: bytes) -> STACGitLabError | None:
        """Return what to raise of a body that begins like a page, unless a page was asked for.

        Raising it is left to the caller: the page may repeat the token, and whatever prints a
        traceback may show the locals here.
        """
        may_be_html = "html" in (self.media_type or "") or self.key.lower().endswith(
            (".html", ".htm")
        )
        if may_be_html or not is_html(response, start):
            return None
        wanted = f"the file {quoted(self.key)}"
        return error_for_page(response, start, wanted=wanted)

    # -- when all of them are there -----------------------------------------------------------

    def check_no_pointer(self, content: bytes) -> None:
        """Check that the file is not one that only points to it."""
        if _LFS_POINTER.match(content):
            raise LFSPointerError(
                f"{quoted(self.key)}: a Git LFS pointer came in place of the file. Its URL, "
                f"{redact(self.url)}, serves the repository without LFS; ask for it through "
                "GitLab's files API with lfs=true, or run 'git lfs pull' in a clone."
            )
        is_dvc_file = self.key.lower().endswith((".dvc", "dvc.lock"))
        if _DVC_POINTER.match(content) and not is_dvc_file:
            raise LFSPointerError(
                f"{quoted(self.key)}: a DVC pointer came in place of the file. Run 'dvc pull' in a "
                "clone of the project to get the data that it points to."
            )

    def check_size(self, size: int) -> None:
        """Check that as many bytes came as the metadata promise."""
        if self.size not in (None, size):
            raise IncompleteDownloadError(
                f"{quoted(self.key)}: {size} bytes came, the metadata promise {self.size}. "
                "The file "
                "has changed since the metadata were written, or it was cut."
            )

    def check_digest(self, checksum: Checksum | None, digest: bytes | None) -> None:
        """Check that what came hashes to a checksum, be it promised here or by the server."""
        if checksum is not None and digest != checksum.digest:
            came = "nothing" if digest is None else digest.hex()
            raise ChecksumMismatchError(
                f"{quoted(self.key)}: the {checksum.algorithm} of what came is {came}, "
                "expected was "
                f"{checksum.digest.hex()}. The bytes are damaged, or the file has changed since "
                "the metadata were written. Nothing was kept; verify=False skips this check."
            )


_TOOL_FOR_SCHEME = {
    "s3": "boto3, or 'aws s3 cp'",
    "gs": "google-cloud-storage, or 'gcloud storage cp'",
    "az": "azure-storage-blob",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "ftp": "curl",
    "sftp": "sftp",
}


@dataclass(frozen=True)
class Locator:
    """Finds out where assets come from, without a request.

    Attributes:
        session: Knows the dialect of each server.
        alternates: Names of alternate assets to prefer to the main href, best first.
        verify: Whether checksums matter.
    """

    session: GitLabSession
    alternates: Sequence[str] = ()
    verify: bool = True

    def locate(self, item: HasAssets, key: str, asset: pystac.Asset) -> tuple[Source, Path | None]:
        """Return where an asset comes from, and its path if that is on this machine.

        Raises:
            DownloadError: If it is where this package cannot, or must not, fetch it.
        """
        item_url = self_href(item)
        try:
            url = self._url(item, item_url, key, asset)
            path = _path_of_href(url) if _is_on_disk(url) else None
            if path is None:
                url.encode()
            elif path.exists() and not path.is_file():
                # To open a pipe is to wait for somebody to write to it.
                raise DownloadError(f"{quoted(key)}: {str(path)!r} is no plain file.")
        except ValueError as error:
            # What urllib says of an address that it cannot take apart.
            href = quoted(self.redacted_url(asset.href))
            raise DownloadError(f"{quoted(key)}: {href} is not a URL: {error}.") from None
        source = Source(
            url=url,
            key=key,
            size=_promised_size(asset),
            checksum=_promised_checksum(key, asset) if self.verify else None,
            media_type=asset.media_type,
        )
        return source, path

    def redacted_url(self, href: str) -> str:
        """Return an href as it may be shown, without secrets."""
        return redact(strip_token_parameters(href))

    def _url(self, item: HasAssets, item_url: str, key: str, asset: pystac.Asset) -> str:
        url = self._absolute(item_url, self._preferred(asset))
        if _is_on_disk(url):
            # Whatever an item calls itself (s3://, urn:), only a path or file: is on this machine.
            if not item_url or not _is_on_disk(item_url):
                where = Origin.of(item_url) or "nowhere in particular"
                raise DownloadError(
                    f"{quoted(key)}: an item from {where} points at a file on this machine. Only "
                    "an item that was read from a local file, or was told to stand at one with "
                    "set_self_href, gets to choose local files."
                )
            return url
        scheme = "" if is_web(url) else safe_urlparse(url).scheme
        if scheme not in ("", "http", "https"):
            tool = _TOOL_FOR_SCHEME.get(scheme, "a tool that speaks it")
            raise DownloadError(
                f"{quoted(key)}: {scheme}:// is not downloaded by stac_gitlab. Use {tool} for "
                f"{self.redacted_url(url)}."
            )
        if Origin.of(url) is None:
            raise ValueError("it names no server")
        return self.session.dialect_of(url).asset_url(
            strip_token_parameters(url),
            key=key,
            item_id=str(getattr(item, "id", "")),
            item_url=item_url,
            properties=getattr(item, "properties", {}),
        )

    def _preferred(self, asset: pystac.Asset) -> str:
        """Return the href of the preferred alternate, or the asset's own."""
        alternates = asset.extra_fields.get("alternate")
        if isinstance(alternates, Mapping):
            hrefs = (_href_of(alternates.get(name)) for name in self.alternates)
            return next(filter(None, hrefs), asset.href)
        return asset.href

    def _absolute(self, item_url: str, href: str) -> str:
        # An absolute href is taken as written: parsing it would lose what a "#" or "?" in the name
        # of a file has done to it.
        if is_web(href) or safe_urlparse(href).scheme or not item_url:
            return href
        if Origin.of(item_url) is None:
            # pystac would take a "#" or "?" in the name of a local file for the end of the name.
            return str(_path_of_href(item_url).parent / href)
        return make_absolute_href(href, item_url)


def self_href(item: HasAssets) -> str:
    """Return where an item stands, or an empty string where nobody knows."""
    return (item.get_self_href() or "") if isinstance(item, pystac.STACObject) else ""


def _is_on_disk(href: str) -> bool:
    return not is_web(href) and is_local_path(href)


def _path_of_href(href: str) -> Path:
    """Return the path that a local href means.

    Raises:
        ValueError: If there can be no such path.
    """
    path = url2pathname(urlsplit(href).path) if href[:5].lower() == "file:" else href
    if b"\0" in os.fsencode(path):
        raise ValueError("embedded null character")
    return Path(path)


def _href_of(alternate: object) -> str | None:
    href = alternate.get("href") if isinstance(alternate, Mapping) else None
    return href if isinstance(href, str) else None


def _promised_size(asset: pystac.Asset) -> int | None:
    size = asset.extra_fields.get("file:size")
    # No file system goes beyond; arithmetic with what JSON can hold does not always work.
    return size if type(size) is int and 0 <= size < 2**63 else None


def _promised_checksum(key: str, asset: pystac.Asset) -> Checksum | None:
    text = asset.extra_fields.get("file:checksum")
    if text is None:
        return None
    try:
        return Checksum.parse(text)
    except UnknownChecksumError as error:
        warnings.warn(
            f"{quoted(key)}: not verified against file:checksum: {error}.",
            UnverifiedDownloadWarning,
            stacklevel=2,
        )
        return None


def digest_of(url: str) -> str:
    """Return what a record keeps of a URL."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
