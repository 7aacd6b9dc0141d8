"""Uploads to Git LFS: objects that the server lacks, several at a time, each with its retries.

An upload goes to the address that the LFS server names, which may be an object store. It gets the
headers that the LFS server names, and never our token.

Source: Git LFS API specification, "Batch" and "Basic Transfer".
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from stac_gitlab.catalogs.gitlab_project import GitLabProject, explained
from stac_gitlab.download.progress import Progress
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    HTTPStatusError,
    InvalidResponseError,
    PermissionDeniedError,
)
from stac_gitlab.http.deadline import Deadline, enforcing
from stac_gitlab.http.responses import Document
from stac_gitlab.redaction import is_credential, quoted, redact, remember_secrets

_MEDIA_TYPE = "application/vnd.git-lfs+json"
_OBJECTS_PER_REQUEST = 100
_MAX_BYTES = 8 * 2**20
_BLOCK = 256 * 1024
# Framing is ours, whatever the server names.
_RESERVED = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect"})


@dataclass(frozen=True)
class LFSObject:
    """A local file and its identity in Git LFS.

    Attributes:
        name: The path in the repository, for progress and messages.
        path: The local file.
        sha256: The SHA-256 of its content, in hex.
        size: Its size in bytes.
    """

    name: str
    path: Path
    sha256: str
    size: int

    @property
    def _wanted(self) -> dict[str, Any]:
        return {"oid": self.sha256, "size": self.size}


class LFSUploader:
    """Uploads objects to the Git LFS store of a project.

    Args:
        project: The project.
        branch: The branch that they are for.
        max_workers: The number of concurrent uploads.
    """

    def __init__(self, project: GitLabProject, branch: str, *, max_workers: int = 4) -> None:
        self._project = project
        self._session = project.session
        self._branch = branch
        self._max_workers = max_workers
        self._stop = threading.Event()

    def upload(self, objects: Sequence[LFSObject], progress: Progress) -> int:
        """Upload what the server lacks, and return how many bytes that were.

        Raises:
            STACGitLabError: If an object cannot be uploaded. Others may have been; they are not
                sent again the next time.
        """
        unique = list({each.sha256: each for each in objects}.values())
        total = 0
        with ThreadPoolExecutor(self._max_workers, thread_name_prefix="stac-gitlab-lfs") as pool:
            try:
                for start in range(0, len(unique), _OBJECTS_PER_REQUEST):
                    some = unique[start : start + _OBJECTS_PER_REQUEST]
                    missing = [pair for pair in self._batch(some) if pair[1]]
                    progress.expect(len(missing), sum(each.size for each, _ in missing))
                    send = partial(self._send, progress=progress)
                    total += sum(pool.map(send, *zip(*missing, strict=True)) if missing else ())
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return total

    def _batch(self, objects: Sequence[LFSObject]) -> Iterator[tuple[LFSObject, dict[str, Any]]]:
        """Yield the objects with their actions; no actions for one that the server has."""
        wanted = {
            "operation": "upload",
            "transfers": ["basic"],
            "ref": {"name": f"refs/heads/{self._branch}"},
            "hash_algo": "sha256",
            "objects": [each._wanted for each in objects],
        }
        url = f"{self._project.lfs_url}/objects/batch"
        try:
            answered = self._session.fetch(
                url,
                _objects_in,
                max_bytes=_MAX_BYTES,
                method="POST",
                headers={"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE},
                json=wanted,
                write_origin=self._project.origin,
                idempotent=True,
            )
        except HTTPStatusError as error:
            if error.status_code in (404, 501):
                error.extend("Maybe Git LFS is not enabled for the project.")
            raise explained(error) from error.__cause__
        for each in objects:
            described = answered.get(each.sha256)
            problem = _problem(described)
            if described is None or problem:
                raise InvalidResponseError(
                    f"{redact(url)}: {quoted(each.name)} cannot be uploaded: {problem}.",
                    url=redact(url),
                )
            yield each, described.get("actions") or {}

    def _send(self, each: LFSObject, actions: dict[str, Any], progress: Progress) -> int:
        with enforcing(Deadline(stop=self._stop)):
            try:
                self._put(each, actions, progress)
            except (AuthenticationError, PermissionDeniedError):
                # The permission to upload may have expired while others were uploaded.
                [(_, actions)] = self._batch([each])
                if actions:
                    self._put(each, actions, progress)
            if isinstance(actions.get("verify"), Mapping):
                self._verify(each, actions["verify"])
        progress.done(each.name, each.size)
        return each.size

    def _put(self, each: LFSObject, actions: Mapping[str, Any], progress: Progress) -> None:
        url, headers = self._request_of(actions.get("upload"))
        headers.setdefault("Content-Type", "application/octet-stream")
        policy = self._session.retry
        slowest = each.size / policy.min_rate if policy.min_rate else each.size
        before = each.path.stat()
        try:
            self._session.fetch(
                url,
                lambda _: None,
                max_bytes=_MAX_BYTES,
                method="PUT",
                headers=headers,
                data=lambda: _Reported(each, progress),
                retry=policy.replace(deadline=policy.deadline + slowest),
            )
        except HTTPStatusError as error:
            raise explained(error) from error.__cause__
        after = each.path.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ConfigurationError(
                f"{quoted(each.name)} has changed while it was uploaded. Publish again."
            )

    def _verify(self, each: LFSObject, action: Mapping[str, Any]) -> None:
        url, headers = self._request_of(action)
        try:
            self._session.fetch(
                url,
                lambda _: None,
                max_bytes=_MAX_BYTES,
                method="POST",
                headers={"Accept": _MEDIA_TYPE, **headers, "Content-Type": _MEDIA_TYPE},
                json=each._wanted,
                idempotent=True,
            )
        except HTTPStatusError as error:
            error.extend(f"The upload of {quoted(each.name)} is not confirmed. Publish again.")
            raise

    def _request_of(self, action: object) -> tuple[str, dict[str, str]]:
        """Return the URL and the headers of an action."""
        href, headers = _mapping(action).get("href"), _mapping(action).get("header") or {}
        if not isinstance(href, str) or not isinstance(headers, Mapping):
            url = redact(self._project.lfs_url)
            raise InvalidResponseError(
                f"{url}: the server names no address to upload to. Does it support the basic "
                "transfer of Git LFS?",
                url=url,
            )
        named = {str(n): str(v) for n, v in headers.items() if str(n).lower() not in _RESERVED}
        remember_secrets(
            value for pair in named.items() if is_credential(*pair) for value in pair[1:]
        )
        return urljoin(self._project.lfs_url, href), named


class _Reported(io.FileIO):
    """A file that reports how far it was read."""

    def __init__(self, each: LFSObject, progress: Progress) -> None:
        super().__init__(each.path)
        self._each = each
        self._progress = progress

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(_BLOCK if size is None or size < _BLOCK else size) or b""
        self._progress.advance(self._each.name, self.tell(), self._each.size)
        return block


def _objects_in(response: Document) -> dict[str, dict[str, Any]]:
    """Return the objects of a batch response, by their hashes."""
    url = redact(response.url)
    try:
        return {each["oid"]: dict(each) for each in json.loads(response.body)["objects"]}
    except (ValueError, TypeError, LookupError, RecursionError):
        raise InvalidResponseError(
            f"{url}: this is not a response of Git LFS. Is Git LFS enabled for the project?",
            url=url,
        ) from None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _problem(described: Mapping[str, Any] | None) -> str:
    """Return why an object cannot be uploaded, as the server describes it, or an empty text."""
    if described is None:
        return "the server does not mention it"
    error = described.get("error")
    if error is None:
        is_valid = isinstance(described.get("actions"), dict | None)
        return "" if is_valid else "the server does not say what to do"
    code, said = _mapping(error).get("code"), _mapping(error).get("message", error)
    advice = {"507": " The storage is full", "403": " The token may not upload to this project"}
    shown = redact(f"{code} {quoted(redact(str(said)))}")
    return f"{shown}.{advice.get(str(code), ' The server rejects it')}"
