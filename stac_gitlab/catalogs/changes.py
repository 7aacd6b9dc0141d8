"""What differs between local files and a project, and the commits that change it.

Files are compared by git blob ids. Each change of a file has the condition that nobody else has
changed it in the meantime.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stac_gitlab.catalogs.git_attributes import ATTRIBUTES_FILE, GitAttributes, lfs_lines
from stac_gitlab.catalogs.gitlab_project import GitLabProject
from stac_gitlab.catalogs.lfs import LFSObject
from stac_gitlab.catalogs.readme import (
    README,
    Readme,
    assets_after,
    check_fields,
    file_assets,
    without_secrets,
)
from stac_gitlab.download.git_blobs import blob_id, git_ids_of, is_lfs_pointer, lfs_pointer
from stac_gitlab.errors import ConfigurationError, HTTPStatusError
from stac_gitlab.redaction import holds_secret, quoted

# GitLab slows down requests with more than 20 MB. Base64 takes a third more than the files.
_COMMIT_BYTES = 12_000_000
_COMMIT_ACTIONS = 2_000
_PARALLEL_REQUESTS = 8


@dataclass(frozen=True)
class _Change:
    """A change of one file.

    Attributes:
        action: ``create``, ``update`` or ``delete``.
        path: The path in the project.
        content: The new content, or the local file that has it.
        blob: The git blob id of the new content.
    """

    action: str
    path: str
    content: bytes | Path = b""
    blob: str = ""

    @property
    def size(self) -> int:
        content = self.content
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def as_sent(self, last_commit: str | None) -> dict[str, Any]:
        """Return the action as the commits API takes it."""
        made: dict[str, Any] = {"action": self.action, "file_path": self.path}
        if last_commit:
            made["last_commit_id"] = last_commit
        if self.action != "delete":
            content = self.content
            content = content if isinstance(content, bytes) else content.read_bytes()
            if blob_id(content) != self.blob:
                raise ConfigurationError(
                    f"{quoted(self.path)} has changed while it was published. Publish again."
                )
            made["content"] = base64.b64encode(content).decode("ascii")
            made["encoding"] = "base64"
        return made


class Changes:
    """What differs between local files and a project.

    Args:
        project: The project.
        head: The commit to compare with; None for a project without files.
        files: The local files, by their paths in the project.
        delete: Whether other files of the project are deleted.
        lfs_above: Larger files go to Git LFS, in bytes.

    Attributes:
        objects: The files to upload to Git LFS.
    """

    def __init__(
        self,
        project: GitLabProject,
        head: str | None,
        files: Mapping[str, Path],
        *,
        delete: bool,
        lfs_above: int,
    ) -> None:
        self._project = project
        self._head = head
        self._tree = project.blob_ids(head) if head else {}
        self._files = dict(files)
        self._changes: list[_Change] = []
        self._deleted: list[str] = []
        self._final = {*self._files} if delete else {*self._files, *self._tree}
        self.objects: list[LFSObject] = []
        self.unchanged: list[str] = []
        if delete:
            kept = {*self._files, README, ATTRIBUTES_FILE}
            self._deleted = [path for path in self._tree if path not in kept]
        self._compare(lfs_above)

    @property
    def created(self) -> list[str]:
        """The paths of the new files."""
        return [change.path for change in self._changes if change.action == "create"]

    @property
    def updated(self) -> list[str]:
        """The paths of the files that differ."""
        return [change.path for change in self._changes if change.action == "update"]

    @property
    def deleted(self) -> list[str]:
        """The paths of the files that are removed."""
        return list(self._deleted)

    def _compare(self, lfs_above: int) -> None:
        rules = {
            path: self._content(path)
            for path in self._final | {ATTRIBUTES_FILE}
            if posixpath.basename(path) == ATTRIBUTES_FILE
        }
        attributes = GitAttributes(rules)
        in_lfs_by_size = []
        for path, local in self._files.items():
            if path in (README, ATTRIBUTES_FILE):
                continue
            decided = attributes.uses_lfs(path)
            size = local.stat().st_size
            in_lfs = size > lfs_above if decided is None else decided
            if not size or (in_lfs and _is_pointer(local, size)):
                in_lfs = False
            known = self._tree.get(path)
            # Without a rule, the project may have it in the other form.
            may_be_either = known is not None and decided is None
            ids = git_ids_of(
                local, blob=may_be_either or not in_lfs, sha256=may_be_either or in_lfs
            )
            if in_lfs and decided is None and (known is None or known != ids.blob):
                in_lfs_by_size.append(path)
            if known is not None and known in (ids.blob, ids.pointer):
                self.unchanged.append(path)
            elif in_lfs and ids.sha256 is not None:
                self.objects.append(LFSObject(path, local, ids.sha256, ids.size))
                self._add(path, lfs_pointer(ids.sha256, ids.size))
            else:
                if known != ids.blob:
                    _check_secrets(path, local.read_bytes())
                self._add(path, local, ids.blob)
        self._add_attributes(rules[ATTRIBUTES_FILE], attributes, in_lfs_by_size)

    def _content(self, path: str) -> bytes:
        """Return the local content of a small file, or the one in the project, or none."""
        if path in self._files:
            return self._files[path].read_bytes()
        if path in self._tree and self._head is not None:
            return self._project.read(path, self._head)
        return b""

    def _add_attributes(
        self, content: bytes, attributes: GitAttributes, in_lfs: Sequence[str]
    ) -> None:
        """Change .gitattributes, before all pointers, so that git fetches what they stand for."""
        others = [path for path in self._final.difference(in_lfs) if not attributes.uses_lfs(path)]
        lines = lfs_lines(in_lfs, others)
        if lines and content and not content.endswith(b"\n"):
            content += b"\n"
        content += "".join(f"{line}\n" for line in lines).encode()
        if content or ATTRIBUTES_FILE in self._tree:
            self._add(ATTRIBUTES_FILE, content, first=True)

    def add_readme(self, text: str, fields: Mapping[str, Any]) -> None:
        """Add the README with its metadata, after the data.

        Args:
            text: The text of a new README.
            fields: The front matter to merge into the one that there is.
        """
        content = self._content(README)
        readme = Readme(content or text.encode())
        wanted: dict[str, Any] = without_secrets(fields)
        paths = sorted(path for path in self._final if path != README)
        known = readme.fields.get("assets")
        if not (wanted.get("assets") or known):
            wanted["assets"] = file_assets(_visible(paths))
        elif not wanted.get("assets") and isinstance(known, list):
            wanted["assets"] = assets_after(known, _visible(self._tree), _visible(paths))
        if not readme.fields.get("title"):
            wanted.setdefault("title", posixpath.basename(self._project.path))
        merged = readme.merged(wanted)
        _check_secrets(README, merged)
        check_fields(Readme(merged).fields, paths)
        self._add(README, merged)

    def _add(
        self, path: str, content: bytes | Path, blob: str | None = None, *, first: bool = False
    ) -> None:
        if blob is None and isinstance(content, bytes):
            blob = blob_id(content)
        if self._tree.get(path) == blob:
            self.unchanged.append(path)
            return
        change = _Change("update" if path in self._tree else "create", path, content, blob or "")
        self._changes.insert(0 if first else len(self._changes), change)

    # -- commits ----------------------------------------------------------------------------

    def commits(self, branch: str, message: str) -> Iterator[tuple[str, int]]:
        """Commit the changes in as few commits as the limits allow; yield ids and bytes."""
        changes = [*self._changes, *(_Change("delete", path) for path in self._deleted)]
        last_commits = self._last_commits(c.path for c in changes if c.action != "create")

        def commit(some: Sequence[_Change]) -> Iterator[tuple[str, int]]:
            actions = [change.as_sent(last_commits.get(change.path)) for change in some]
            try:
                made = self._project.commit(branch, message, actions)
            except HTTPStatusError as error:
                if error.status_code != 413 or len(some) == 1:
                    raise
            else:
                yield made, sum(change.size for change in some)
                return
            # A proxy before GitLab takes less at a time.
            yield from commit(some[: len(some) // 2])
            yield from commit(some[len(some) // 2 :])

        for some in _batches(changes):
            yield from commit(some)

    def _last_commits(self, paths: Iterable[str]) -> dict[str, str | None]:
        """Return the commit that last changed each file: the condition of its change."""
        paths, head = list(paths), self._head
        if head is None:
            return {}
        with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
            found = pool.map(lambda path: self._project.last_commit(path, head), paths)
            return dict(zip(paths, found, strict=True))


def _batches(changes: Iterable[_Change]) -> Iterator[list[_Change]]:
    batch: list[_Change] = []
    size = 0
    for change in changes:
        if batch and (size + change.size > _COMMIT_BYTES or len(batch) >= _COMMIT_ACTIONS):
            yield batch
            batch, size = [], 0
        batch.append(change)
        size += change.size
    if batch:
        yield batch


def _check_secrets(path: str, content: bytes) -> None:
    if holds_secret(content):
        raise ConfigurationError(
            f"{quoted(path)} contains your token. All who can read the project could use it. "
            "Remove the token from the file."
        )


def _visible(paths: Iterable[str]) -> list[str]:
    """Return the files that can be assets."""
    names = ((path, posixpath.basename(path)) for path in sorted(paths))
    return [path for path, name in names if path != README and not name.startswith(".")]


def _is_pointer(path: Path, size: int) -> bool:
    """Return whether a local file is a Git LFS pointer, as in a clone without its objects."""
    if size > 1024:
        return False
    return is_lfs_pointer(path.read_bytes())
