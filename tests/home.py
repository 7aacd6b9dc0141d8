"""Downloads of one file to a folder, and checks of that folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fault_server import ServedFile
from sample_items import BODY, TOKEN

from stac_gitlab.auth import Credentials
from stac_gitlab.download.checked_file import TransferResult
from stac_gitlab.download.source import Source
from stac_gitlab.download.transfer import download_file
from stac_gitlab.errors import STACGitLabError
from stac_gitlab.files.checksums import Checksum
from stac_gitlab.files.partial_file import leftovers_for, leftovers_in
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.settings import RetryPolicy
from stac_gitlab.testing import LoopbackServer


class Home:
    """Downloads the file at `/lakes.bin`, with a session that records its waits."""

    def __init__(self, server: LoopbackServer, folder: Path, closing: ExitStack) -> None:
        self.server = server
        self.target = folder / "lakes.bin"
        self.segments = 1
        self.slept: list[float] = []
        self.progress: list[tuple[int, int | None]] = []
        self.file = ServedFile(BODY)
        self._closing = closing
        server.route("/lakes.bin", self.file)

    def session(self, **policy: Any) -> GitLabSession:
        settings = {"max_attempts": 3, "sleep": self.slept.append, **policy}
        credentials = Credentials(TOKEN, base_url=self.server.url)
        return self._closing.enter_context(
            GitLabSession(credentials, retry=RetryPolicy(**settings))
        )

    def download(
        self,
        path: str = "/lakes.bin",
        *,
        key: str = "lakes.bin",
        size: int | None = None,
        checksum: str | None = None,
        media_type: str | None = None,
        verify: bool = True,
        known: str | None = None,
        continuing: bool = False,
        segments: int | None = None,
        on_bytes: Callable[[int, int | None], None] | None = None,
        **policy: Any,
    ) -> TransferResult:
        source = Source(
            url=path if "://" in path else f"{self.server.url}{path}",
            key=key,
            size=size,
            checksum=None if checksum is None else Checksum.parse(checksum),
            media_type=media_type,
        )
        folder = self.target.parent
        return download_file(
            self.session(**policy),
            source,
            self.target,
            verify=verify,
            known=known,
            leftovers=leftovers_for(self.target, leftovers_in(folder)) if continuing else (),
            segments=self.segments if segments is None else segments,
            on_bytes=on_bytes or (lambda *there: self.progress.append(there)),
        )

    def fails(
        self, error: type[Exception] | tuple[type[Exception], ...], match: str, **how: Any
    ) -> STACGitLabError:
        """Assert that the download fails, and that it leaves the existing file as it was."""
        self.target.write_bytes(b"good and old")
        with pytest.raises(error, match=match) as caught:
            self.download(**how)
        self.assert_there(b"good and old")
        assert TOKEN not in str(caught.value)
        assert isinstance(caught.value, STACGitLabError)
        return caught.value

    def assert_there(self, content: bytes = BODY) -> None:
        assert self.target.read_bytes() == content
        assert os.listdir(self.target.parent) == [self.target.name]

    @property
    def ranges(self) -> list[str | None]:
        """The `Range` header of each request so far."""
        return [request.headers.get("Range") for request in self.server.requests]
