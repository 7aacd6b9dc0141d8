"""A file to download: its URL, and the checks of its body against the metadata."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import pystac
import requests
from pystac.utils import make_absolute_href, safe_urlparse

from stac_gitlab.auth import Origin, is_signed
from stac_gitlab.download.assets import HasAssets
from stac_gitlab.errors import (
    ChecksumMismatchError,
    ConfigurationError,
    DownloadError,
    IncompleteDownloadError,
    UnverifiedDownloadWarning,
)
from stac_gitlab.files.checksums import Checksum, UnknownChecksumError
from stac_gitlab.files.paths import is_local, is_web, local_path
from stac_gitlab.http.body import is_decodable
from stac_gitlab.http.head import is_well_framed, length_in
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.redaction import printable, quoted, redact, strip_token_parameters

# By content encoding: the names and media types of files that are stored in it.
_STORED_ENCODINGS = {
    "gzip": re.compile(r".*\.(?:t?gz|gzip|svgz)|application/(?:x-)?(?:gzip|tgz|gtar-compressed)"),
    "zstd": re.compile(r".*\.zst|application/zstd"),
    "br": re.compile(r".*\.br"),
}


@dataclass(frozen=True)
class Source:
    """The URL of a file, and what the metadata say about it.

    Attributes:
        url: The URL to download it from.
        key: Its asset key, for messages.
        size: Its size in bytes (``file:size``).
        checksum: Its checksum (``file:checksum``).
        media_type: Its media type.
    """

    url: str
    key: str
    size: int | None = None
    checksum: Checksum | None = None
    media_type: str | None = None

    # -- before the body is read --------------------------------------------------------------

    def is_stored_encoded(self, response: requests.Response) -> bool:
        """Return whether the encoded bytes of a response are the file itself.

        Many servers label a file such as `a.csv.gz` with ``Content-Encoding: gzip``.
        """
        length = length_in(response.headers)
        if None not in (self.size, length):
            return self.size == length
        encoding = response.headers.get("Content-Encoding", "").strip().lower().removeprefix("x-")
        stored = _STORED_ENCODINGS.get(encoding)
        media_type = (self.media_type or "").partition(";")[0].strip()
        names = (self.key, urlsplit(self.url).path, media_type)
        return stored is not None and any(stored.fullmatch(name.lower()) for name in names)

    def check_body(self, response: requests.Response, *, decode: bool = True) -> None:
        """Check that the body of a response can be decoded, and that its end can be found."""
        if decode and not is_decodable(response):
            encoding = redact(response.headers["Content-Encoding"])[:80]
            raise DownloadError(
                f"{quoted(self.key)}: the server sends the file in an encoding that cannot be "
                f"decoded ({encoding!r}), although the request did not accept any."
            )
        if not is_well_framed(response):
            raise DownloadError(
                f"{quoted(self.key)}: the headers Content-Length and Transfer-Encoding do not say "
                "clearly where the file ends."
            )

    def check_announced(self, size: int | None) -> None:
        """Check the size that the server announces against the metadata."""
        if self.size not in (None, size) and size:
            raise IncompleteDownloadError(
                f"{quoted(self.key)}: the server announces {size} bytes, but file:size is "
                f"{self.size}. The file has changed since the metadata were written, or the server "
                "sends something else. verify=False skips this check, verify='checksum' only this "
                "one."
            )

    def check_limit(self, size: int, allowed: int | None) -> None:
        """Check that the file is not larger than the caller allows."""
        if allowed is not None and size > allowed:
            raise DownloadError(
                f"{quoted(self.key)}: the file is larger than {allowed} bytes. If you expect "
                "that, raise Limits(file_bytes=)."
            )

    # -- when the body is complete ------------------------------------------------------------

    def check_size(self, size: int) -> None:
        """Check the size of the file against the metadata."""
        if self.size not in (None, size):
            raise IncompleteDownloadError(
                f"{quoted(self.key)}: {size} bytes arrived, but file:size is {self.size}. The file "
                "has changed since the metadata were written, or it is incomplete. verify=False "
                "skips this check, verify='checksum' only this one."
            )

    def check_digest(self, checksum: Checksum | None, digest: bytes | None) -> None:
        """Check the file against a checksum of the metadata or of the server."""
        if checksum is not None and digest != checksum.digest:
            found = "missing" if digest is None else digest.hex()
            raise ChecksumMismatchError(
                f"{quoted(self.key)}: the {checksum.algorithm} of the file is {found}, but the "
                f"expected one is {checksum.digest.hex()}. The bytes are damaged, or the file has "
                "changed since the metadata were written. Nothing was kept; verify=False skips "
                "this check, verify='length' only this one."
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


Verify = bool | Literal["length", "checksum"]
"""What to compare with the metadata: both, nothing, or one of the two."""


@dataclass(frozen=True)
class Locator:
    """Determines where assets come from, without a request.

    Attributes:
        session: Knows the dialect of each server.
        alternates: Names of alternate assets to prefer to the main href, best first.
        verify: Whether to use sizes and checksums, or which of them.
    """

    session: GitLabSession
    alternates: Sequence[str] = ()
    verify: Verify = True

    def __post_init__(self) -> None:
        if not isinstance(self.verify, bool) and self.verify not in ("length", "checksum"):
            raise ConfigurationError(
                f"verify={self.verify!r}: choose from True, False, 'length' and 'checksum'."
            )

    def locate(self, item: HasAssets, key: str, asset: pystac.Asset) -> tuple[Source, Path | None]:
        """Return the source of an asset, and its path if it is a local file.

        Raises:
            DownloadError: If this package cannot, or must not, read it there.
        """
        item_url = self_href(item)
        try:
            url = self._url(item, item_url, key, asset)
            path = _path_of_href(url) if is_local(url) else None
            if path is None:
                url.encode()
            elif path.exists() and not path.is_file():
                # Opening a pipe would wait for a writer.
                raise DownloadError(f"{quoted(key)}: {str(path)!r} is not a regular file.")
        except ConfigurationError as error:
            raise DownloadError(f"{quoted(key)}: {error}") from None
        except ValueError as error:
            # urllib cannot parse the URL.
            href = quoted(redacted_url(asset.href))
            raise DownloadError(f"{quoted(key)}: {href} is not a URL: {error}.") from None
        source = Source(
            url=url,
            key=key,
            size=_size_of(asset) if self.verify in (True, "length") else None,
            checksum=_checksum_of(key, asset) if self.verify in (True, "checksum") else None,
            media_type=asset.media_type if isinstance(asset.media_type, str) else None,
        )
        return source, path

    def _url(self, item: HasAssets, item_url: str, key: str, asset: pystac.Asset) -> str:
        url = absolute_href(self._preferred(asset), item_url)
        if is_local(url):
            # The URL of the item may have any scheme (s3:, urn:); only a path or file: is local.
            if not item_url or not is_local(item_url):
                where = Origin.of(item_url) or "an unknown place"
                raise DownloadError(
                    f"{quoted(key)}: an item from {where} refers to a local file. Only an item "
                    "that was read from a local file, or has a local self href, may do that."
                )
            return url
        scheme = "" if is_web(url) else safe_urlparse(url).scheme
        if scheme not in ("", "http", "https"):
            tool = _TOOL_FOR_SCHEME.get(scheme, "a tool that speaks it")
            raise DownloadError(
                f"{quoted(key)}: stac_gitlab does not download {scheme}:// URLs. Use {tool} "
                f"for {printable(redacted_url(url))}."
            )
        if Origin.of(url) is None:
            raise ValueError(_why_without_origin(url))
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
            for alternate in map(alternates.get, self.alternates):
                href = alternate.get("href") if isinstance(alternate, Mapping) else None
                if isinstance(href, str) and href:
                    return href
        return asset.href


def absolute_href(href: str, item_url: str) -> str:
    """Return an href of an item as an absolute one, if the URL of the item is known."""
    # An absolute href is used unchanged: joining it would lose a "#" or "?" of a file name.
    if is_web(href) or safe_urlparse(href).scheme or not item_url:
        return href
    if href.startswith("//") and is_web(item_url):
        # pystac would drop the host.
        return f"{safe_urlparse(item_url).scheme}:{href}"
    if Origin.of(item_url) is None:
        # pystac would end the name of a local file at a "#" or "?".
        return str(_path_of_href(item_url).parent / href)
    return make_absolute_href(href, item_url)


def _why_without_origin(url: str) -> str:
    """Return why a URL has no host to which a request can be sent."""
    host = urlsplit(url).netloc
    if "@" in host:
        return "it contains a user name. Put the login into the .netrc file"
    return "the name or port of its host is not valid" if host else "it has no host"


def redacted_url(href: str) -> str:
    """Return an href without secrets."""
    return redact(strip_token_parameters(href))


def self_href(item: HasAssets) -> str:
    """Return the self href of an item, or an empty string if it has none.

    Raises:
        ConfigurationError: If the links of the item, which was made by hand, are no links.
    """
    if not isinstance(item, pystac.STACObject):
        return ""
    links: object = item.links
    if not isinstance(links, list) or not all(isinstance(one, pystac.Link) for one in links):
        raise ConfigurationError(f"The links of {quoted(str(item.id))} are no list of pystac.Link.")
    return item.get_self_href() or ""


def _path_of_href(href: str) -> Path:
    """Return the path of a local href; raise a ValueError if no file can have it."""
    path = local_path(href)
    if b"\0" in os.fsencode(path):
        raise ValueError("embedded null character")
    return Path(path)


def _size_of(asset: pystac.Asset) -> int | None:
    size = asset.extra_fields.get("file:size")
    # No file system has larger files, and not all arithmetic works with any number of JSON.
    return size if type(size) is int and 0 <= size < 2**63 else None


def _checksum_of(key: str, asset: pystac.Asset) -> Checksum | None:
    text = asset.extra_fields.get("file:checksum")
    try:
        return None if text is None else Checksum.parse(text)
    except UnknownChecksumError as error:
        problem = f"{quoted(key)}: file:checksum is not verified: {error}."
        warnings.warn(problem, UnverifiedDownloadWarning, stacklevel=2)
        return None


def url_digest(url: str) -> str:
    """Return a digest of a URL, under which records and partial files are found again.

    What a server changes with every signature of a URL is no part of it.
    """
    with contextlib.suppress(ValueError):
        parts = urlsplit(url) if "?" in url else None
        if parts is not None and parts.query:
            changing = _SIGNATURE if is_signed(url) else _TOKENS
            kept = (
                p for p in parts.query.split("&") if not changing.fullmatch(p.partition("=")[0])
            )
            url = urlunsplit(parts._replace(query="&".join(kept)))
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_TOKENS = re.compile(r"(?:access_|private_|gitlab_|job_|x-amz-security-)?token", re.IGNORECASE)
# Signatures of Azure (shared access), S3, CloudFront and Google Cloud Storage.
_SIGNATURE = re.compile(
    rf"{_TOKENS.pattern}|x-(?:amz|goog)-.*|sig|s[ekprtv]|sip|spr|srt|ss|sk(?:oid|tid|[esvt])"
    "|saoid|suoid|scid|sdd|ses"
    "|signature|expires|policy|key-pair-id|awsaccesskeyid|googleaccessid",
    re.IGNORECASE,
)
