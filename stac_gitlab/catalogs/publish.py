"""A folder of data or a STAC object, published as a GitLab project that SharingHub lists.

No git program is needed. What differs is known by git blob ids. Large files go to Git LFS first,
then data and pointers are committed, and the README with the metadata comes last: the item never
shows files that are not there. A publish that was interrupted is run again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pystac

from stac_gitlab.auth import URL_VARIABLE
from stac_gitlab.catalogs.changes import Changes
from stac_gitlab.catalogs.gitlab_project import GitLabProject
from stac_gitlab.catalogs.lfs import LFSUploader
from stac_gitlab.catalogs.source import local_source
from stac_gitlab.dialects import api_url
from stac_gitlab.download.progress import ProgressOption, open_progress
from stac_gitlab.errors import ConfigurationError, NotFoundError, STACGitLabError
from stac_gitlab.notebook import html_fields, listing, web_link
from stac_gitlab.reading.stac_io import GitLabStacIO, default_reader
from stac_gitlab.redaction import quoted, redact
from stac_gitlab.settings import expect_text, whole_number

_TOPIC_PREFIX = "sharinghub:"


@dataclass(frozen=True)
class PublishReport:
    """What :func:`publish` did, or would do.

    Attributes:
        created: The paths of the new files.
        updated: The paths of the files that differed.
        unchanged: The paths of the files that were not sent.
        deleted: The paths of the files that were removed.
        uploaded_bytes: The bytes that were sent to Git LFS and in commits.
        commits: The ids of the commits, in their order; none if nothing differed.
        project_url: The web address of the project.
        item_url: Where SharingHub serves the item; None without the address of a SharingHub.
        dry_run: Whether nothing was sent.
    """

    created: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]
    deleted: tuple[str, ...]
    uploaded_bytes: int
    commits: tuple[str, ...]
    project_url: str
    item_url: str | None
    dry_run: bool = False

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{len(getattr(self, name))} {name}"
            for name in ("created", "updated", "unchanged", "deleted")
        )
        planned = "planned: " if self.dry_run else ""
        return redact(f"<PublishReport of {self.project_url}: {planned}{counts}>")

    def _repr_html_(self) -> str:
        fields: dict[str, object] = {
            "project": web_link(self.project_url),
            "item": None if self.item_url is None else web_link(self.item_url),
            "status": "planned" if self.dry_run else f"{self.uploaded_bytes} bytes sent",
        }
        for name in ("created", "updated", "unchanged", "deleted"):
            paths = getattr(self, name)
            if paths:
                fields[name] = listing(paths, len(paths))
        return html_fields("PublishReport", fields)


def publish(
    source: str | os.PathLike[str] | pystac.Item | pystac.Catalog,
    project: str,
    *,
    branch: str = "main",
    message: str | None = None,
    topics: Sequence[str] = ("sharinghub:dataset",),
    metadata: Mapping[str, Any] | None = None,
    create_project: bool = False,
    delete: bool = False,
    dry_run: bool = False,
    lfs_above: int = 1_000_000,
    hub: str | None = None,
    stac_io: GitLabStacIO | None = None,
    progress: ProgressOption = None,
) -> PublishReport:
    """Bring a folder of data, an item or a catalog into a GitLab project, without git.

    Files that the project has already are not sent. Nothing else in the project is touched. Each
    change has the condition that nobody else has changed the file in the meantime.

    Args:
        source: A folder; or an item with local assets; or a catalog that was saved to a folder.
        project: The web address of the project, such as
            ``https://gitlab.example.org/group/project``.
        branch: The branch. SharingHub shows the default branch of a project.
        message: The message of the commits.
        topics: GitLab topics that the project needs; others that it has stay. The topic decides in
            which collection SharingHub lists it.
        metadata: Fields of the front matter of README.md, such as ``license``, ``extent`` or
            ``assets``. They replace those of `source` and of the README.
        create_project: Create the project if it does not exist, private.
        delete: Delete files of the project that `source` does not have.
        dry_run: Send nothing, and return what would be done.
        lfs_above: Larger files go to Git LFS, in bytes, unless .gitattributes decides.
        hub: The address of the SharingHub, for ``item_url``; by default ``STAC_GITLAB_URL``.
        stac_io: The reader whose token and retries are used; by default pystac's default reader
            if it is a `GitLabStacIO`, or else a new one.
        progress: As for `STACDownloader`.

    Returns:
        What was created, updated, left alone and deleted.

    Raises:
        ConfigurationError: If an argument makes no sense, or SharingHub would refuse the metadata.
        ConflictError: If somebody else has changed one of the files.
        NotFoundError: If there is no such project, or the token has no access to it.
        PermissionDeniedError: If the token lacks the scope ``api`` or the role.
        STACGitLabError: If a request fails in another way.

    Example:
        >>> report = publish("lakes/", "https://gitlab.example.org/alpine/lakes")  # doctest: +SKIP
        >>> report.item_url  # doctest: +SKIP
        'https://hub.example.org/api/stac/collections/dataset/items/alpine/lakes'
    """
    expect_text("project", project, wanted="the URL of a GitLab project")
    expect_text("branch", branch)
    whole_number("lfs_above", lfs_above, least=0)
    if isinstance(topics, str):
        raise ConfigurationError(f"topics={topics!r}: give a list of topics.")
    with _explained_file_errors():
        files, fields, text = local_source(source)
        there = GitLabProject(stac_io or default_reader(), project)
        described = _described(there, create_project=create_project)
        head = there.head(branch) if described else None
        if described and head is None and not described.get("empty_repo"):
            raise ConfigurationError(
                f"branch={branch!r}: {there.url} has no such branch. Its default branch is "
                f"{quoted(str(described.get('default_branch')))}. Use that one, or create the "
                "branch in GitLab."
            )
        plan = Changes(there, head, files, delete=delete, lfs_above=lfs_above)
        plan.add_readme(text, {**fields, **(metadata or {})})
        sent, commits = 0, []
        if not dry_run:
            described = described or there.create()
            with open_progress(progress) as shown:
                sent = LFSUploader(there, branch).upload(plan.objects, shown)
            for commit_id, size in plan.commits(branch, message or f"Publish {there.path}"):
                commits.append(commit_id)
                sent += size
            known = _texts(described.get("topics")) or _texts(described.get("tag_list"))
            if not set(topics) <= set(known):
                there.set_topics([*known, *(topic for topic in topics if topic not in known)])
    return PublishReport(
        created=tuple(plan.created),
        updated=tuple(plan.updated),
        unchanged=tuple(plan.unchanged),
        deleted=tuple(plan.deleted),
        uploaded_bytes=sent,
        commits=tuple(commits),
        project_url=there.url,
        item_url=_item_url(hub, topics, there.path),
        dry_run=dry_run,
    )


@contextlib.contextmanager
def _explained_file_errors() -> Iterator[None]:
    """Raise an error of a local file as one that names it."""
    try:
        yield
    except STACGitLabError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"{quoted(str(error.filename))} cannot be read: {error.strerror or error}. Nothing "
            "else is sent. Publish again when the files are there."
        ) from error


def _described(project: GitLabProject, *, create_project: bool) -> dict[str, Any] | None:
    """Return GitLab's description of the project, or None if it is to be created."""
    try:
        return project.describe()
    except NotFoundError as error:
        if create_project:
            return None
        error.extend("To create it, pass create_project=True.")
        raise


def _texts(value: object) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _item_url(hub: str | None, topics: Iterable[str], path: str) -> str | None:
    hub = hub or os.environ.get(URL_VARIABLE)
    collection = next((t for t in topics if t.startswith(_TOPIC_PREFIX)), None)
    if not hub or collection is None:
        return None
    collection = collection.removeprefix(_TOPIC_PREFIX)
    return f"{api_url(hub)}/collections/{quote(collection)}/items/{quote(path)}"
