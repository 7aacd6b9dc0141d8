"""Where an asset comes from: its href made absolute, and refused where it must not be followed.

Relative hrefs are relative to the item. Only an item on this machine chooses files on this machine,
and a scheme that is not downloaded here is an error that names a tool which can.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pystac
from pystac.utils import make_absolute_href, safe_urlparse

from stac_gitlab.assets import HasAssets
from stac_gitlab.auth import Origin, scrub
from stac_gitlab.confinement import is_local_path, is_web
from stac_gitlab.errors import DownloadError, UnverifiedDownloadWarning
from stac_gitlab.multihash import Checksum, UnknownChecksumError
from stac_gitlab.names import shown
from stac_gitlab.session import GitLabSession
from stac_gitlab.sharinghub import strip_token
from stac_gitlab.source import Source

__all__ = ["Locator", "self_href"]

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
            path = _local_path(url) if _is_local(url) else None
            if path is None:
                url.encode()
            elif path.exists() and not path.is_file():
                # To open a pipe is to wait for somebody to write to it.
                raise DownloadError(f"{shown(key)}: {str(path)!r} is no plain file.")
        except ValueError as error:
            # What urllib says of an address that it cannot take apart.
            href = shown(self.shown_url(asset.href))
            raise DownloadError(f"{shown(key)}: {href} is not a URL: {error}.") from None
        source = Source(
            url=url,
            key=key,
            size=_promised_size(asset),
            checksum=_promised_checksum(key, asset) if self.verify else None,
            media_type=asset.media_type,
        )
        return source, path

    def shown_url(self, href: str) -> str:
        """Return an href as it may be shown, without secrets."""
        return scrub(strip_token(href), self.session.credentials.secrets())

    def _url(self, item: HasAssets, item_url: str, key: str, asset: pystac.Asset) -> str:
        url = self._absolute(item_url, self._preferred(asset))
        if _is_local(url):
            # Whatever an item calls itself (s3://, urn:), only a path or file: is on this machine.
            if not item_url or not _is_local(item_url):
                where = Origin.of(item_url) or "nowhere in particular"
                raise DownloadError(
                    f"{shown(key)}: an item from {where} points at a file on this machine. Only "
                    "an item that was read from a local file, or was told to stand at one with "
                    "set_self_href, gets to choose local files."
                )
            return url
        scheme = "" if is_web(url) else safe_urlparse(url).scheme
        if scheme not in ("", "http", "https"):
            tool = _TOOL_FOR_SCHEME.get(scheme, "a tool that speaks it")
            raise DownloadError(
                f"{shown(key)}: {scheme}:// is not downloaded by stac_gitlab. Use {tool} for "
                f"{self.shown_url(url)}."
            )
        if Origin.of(url) is None:
            raise ValueError("it names no server")
        return self.session.dialect_of(url).asset_url(
            strip_token(url),
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
            return str(_local_path(item_url).parent / href)
        return make_absolute_href(href, item_url)


def self_href(item: HasAssets) -> str:
    """Return where an item stands, or an empty string where nobody knows."""
    return (item.get_self_href() or "") if isinstance(item, pystac.STACObject) else ""


def _is_local(href: str) -> bool:
    return not is_web(href) and is_local_path(href)


def _local_path(href: str) -> Path:
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
            f"{shown(key)}: not verified against file:checksum: {error}.",
            UnverifiedDownloadWarning,
            stacklevel=2,
        )
        return None
