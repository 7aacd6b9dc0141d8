"""A file to bring: where it comes from, what is promised of it, and whether what came is it.

What comes in its place may be cut, damaged, endless, a pointer to the file, or a page about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import requests

from stac_gitlab.answers import error_for_page, is_html
from stac_gitlab.auth import scrub
from stac_gitlab.body import is_decodable
from stac_gitlab.errors import (
    ChecksumMismatchError,
    DownloadError,
    IncompleteDownloadError,
    LFSPointerError,
    STACGitLabError,
)
from stac_gitlab.multihash import Checksum
from stac_gitlab.names import shown
from stac_gitlab.ranges import is_well_framed

__all__ = ["PAGE_START", "POINTER_SIZE", "Source"]

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

    def check_body(self, response: requests.Response, secrets: Iterable[str]) -> None:
        """Check that the body of an answer can be decoded, and that its end can be found."""
        if not is_decodable(response):
            encoding = scrub(response.headers["Content-Encoding"], secrets)
            raise DownloadError(
                f"{shown(self.key)}: the server sends it in an encoding that cannot be undone here "
                f"({encoding[:80]!r}), although none was asked for."
            )
        if not is_well_framed(response):
            raise DownloadError(
                f"{shown(self.key)}: the server does not say clearly where the file ends (its "
                "headers Content-Length and Transfer-Encoding)."
            )

    def check_announced(self, total: int | None) -> None:
        """Check that the server announces as many bytes as the metadata promise."""
        if self.size not in (None, total) and total:
            raise IncompleteDownloadError(
                f"{shown(self.key)}: the server announces {total} bytes, the metadata promise "
                f"{self.size}. The file has changed since the metadata were written, or something "
                "else is served in its place."
            )

    def check_limit(self, size: int, allowed: int | None) -> None:
        """Check that there are not more bytes than the caller allows."""
        if allowed is not None and size > allowed:
            raise DownloadError(
                f"{shown(self.key)}: the file is larger than {allowed} bytes. If you expect that, "
                "raise Limits(file_bytes=)."
            )

    def error_for_page(
        self, response: requests.Response, start: bytes, secrets: Iterable[str]
    ) -> STACGitLabError | None:
        """Return what to raise of a body that begins like a page, unless a page was asked for.

        Raising it is left to the caller: the page may repeat the token, and whatever prints a
        traceback may show the locals here.
        """
        may_be_html = "html" in (self.media_type or "") or self.key.lower().endswith(
            (".html", ".htm")
        )
        if may_be_html or not is_html(response, start):
            return None
        wanted = f"the file {shown(self.key)}"
        return error_for_page(response, start, secrets=secrets, wanted=wanted)

    # -- when all of them are there -----------------------------------------------------------

    def check_no_pointer(self, content: bytes) -> None:
        """Check that the file is not one that only points to it."""
        if _LFS_POINTER.match(content):
            raise LFSPointerError(
                f"{shown(self.key)}: a Git LFS pointer came in place of the file. Its URL, "
                f"{scrub(self.url)}, serves the repository without LFS; ask for it through "
                "GitLab's files API with lfs=true, or run 'git lfs pull' in a clone."
            )
        is_dvc_file = self.key.lower().endswith((".dvc", "dvc.lock"))
        if _DVC_POINTER.match(content) and not is_dvc_file:
            raise LFSPointerError(
                f"{shown(self.key)}: a DVC pointer came in place of the file. Run 'dvc pull' in a "
                "clone of the project to get the data that it points to."
            )

    def check_size(self, size: int) -> None:
        """Check that as many bytes came as the metadata promise."""
        if self.size not in (None, size):
            raise IncompleteDownloadError(
                f"{shown(self.key)}: {size} bytes came, the metadata promise {self.size}. The file "
                "has changed since the metadata were written, or it was cut."
            )

    def check_digest(self, checksum: Checksum | None, digest: bytes | None) -> None:
        """Check that what came hashes to a checksum, be it promised here or by the server."""
        if checksum is not None and digest != checksum.digest:
            came = "nothing" if digest is None else digest.hex()
            raise ChecksumMismatchError(
                f"{shown(self.key)}: the {checksum.algorithm} of what came is {came}, expected was "
                f"{checksum.digest.hex()}. The bytes are damaged, or the file has changed since "
                "the metadata were written. Nothing was kept; verify=False skips this check."
            )
