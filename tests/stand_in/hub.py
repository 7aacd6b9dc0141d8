"""SharingHub 0.4.0 in all recorded detail: search, previews, caches and compressed downloads."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote

from stac_gitlab.testing import Answer, Project, RecordedRequest, SharingHubServer, User
from stac_gitlab.testing.access import AccessLevel, NumberedProject
from stac_gitlab.testing.documents import Document, View, preview_item
from stac_gitlab.testing.exchange import Headers, accepts_gzip, ranged_response, response_of
from stac_gitlab.testing.search import CRASH, RejectedError
from stand_in.listings import Listing
from stand_in.order import Order
from stand_in.pages import Page, find_ids, find_page
from stand_in.search import Search, query_integer

Compression = Literal["text", "all", "nothing"]


@dataclass(frozen=True)
class RecordedProject(Project):
    """A `Project`, and what only the recorded details use.

    Attributes:
        summary: GitLab's description in one line, for previews and text search. `None` takes the
            first paragraph of the README for previews.
        broken_preview: Whether every preview page with the project is a 500.
        packages: Types of packages by name, for `package` links.
    """

    summary: str | None = None
    broken_preview: bool = False
    packages: Mapping[str, str] = field(default_factory=dict)


class RecordedHub(SharingHubServer):
    """A `SharingHubServer`, and what few tests need of the real one.

    Args:
        item_cache: Respond to all requests for an item as to the first one: with the token, the
            host and the collection of that request.
        compressed_downloads: What is compressed if the client accepts gzip. Compressed files have
            no length.
        cached_archives: Send archives with a length and ranges, as after their first download.
        options: As for `SharingHubServer`.
    """

    def __init__(
        self,
        *projects: Any,
        item_cache: bool = False,
        compressed_downloads: Compression = "text",
        cached_archives: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(*projects, **options)
        self._item_cache: dict[tuple[str, User], Answer] | None = {} if item_cache else None
        self._compression = compressed_downloads
        self._cached_archives = cached_archives

    def _response(self, request: RecordedRequest) -> Answer:
        path = request.path.rstrip("/")
        in_stac = request.path.startswith(f"{self._stac_path}/")
        known = [pattern for pattern, _, _ in self._endpoints]
        if (
            in_stac
            and request.path.endswith("/")
            and not any(re.fullmatch(pattern, request.path) for pattern in known)
            and any(re.fullmatch(pattern, path) for pattern in known)
        ):
            raw, question, query = request.target.partition("?")
            origin = f"http://{request.headers['Host']}"
            return Answer(307, (("location", f"{origin}{raw.rstrip('/')}{question}{query}"),))
        return super()._response(request)

    # -- Listings -----------------------------------------------------------------------------

    def _items(self, request: RecordedRequest, name: str) -> Answer:
        view, category = self._view(request), self._known(name).id
        listing = Listing.of_collection(request, category, default_limit=self.page_limit)
        return self._listed(request, view, listing)

    def _search(self, request: RecordedRequest) -> Answer:
        view = self._view(request)
        return self._listed(
            request, view, Listing.of_search(request, default_limit=self.page_limit)
        )

    def _listed(self, request: RecordedRequest, view: View, listing: Listing) -> Answer:
        category = self._searched_collection(listing.search.collections)
        if category is None:
            empty = replace(listing, search=Search(limit=listing.search.limit))
            return response_of(empty.page(view, Page((), matched=0), []))
        user = self._user(request, view)
        page = self._found(listing, category, user)
        features = [
            self._feature(view, each, category, listing.mode, user) for each in page.projects
        ]
        return response_of(listing.page(view, page, features))

    def _found(self, listing: Listing, category: str, user: User) -> Page:
        search = listing.search
        if search.ids:
            return find_ids(search.ids, lambda path: self._visible(path, user), category)
        sort_field, descending = search.sort_field()
        order = Order.of(self.catalogue, category, user, sort_field, descending=descending)
        local = listing.mode != "reference"
        return find_page(self.catalogue, order, search, listing.cursor, local=local)

    # -- Items --------------------------------------------------------------------------------

    def _feature(
        self, view: View, found: NumberedProject, category: str, mode: str, user: User
    ) -> Document:
        project = found.project
        extra = project if isinstance(project, RecordedProject) else None
        level = user.level_on(project)
        if mode == "preview":
            if extra is not None and extra.broken_preview:
                raise RejectedError(CRASH)
            summary = None if extra is None else extra.summary
            return preview_item(view, found, category, level, summary=summary)
        item = super()._feature(view, found, category, mode, user)
        if mode == "full" and level > AccessLevel.GUEST:
            packages = {} if extra is None else extra.packages
            item["links"].extend(_package_links(view, project, packages))
            if doi := project.properties.get("sci:doi"):
                item["links"].append({"rel": "cite-as", "href": f"https://doi.org/{doi}"})
        return item

    def _item(self, request: RecordedRequest, name: str, path: str) -> Answer:
        answer = super()._item(request, name, path)
        if self._item_cache is None or answer.status != 200:
            return answer
        user = self._user(request, self._view(request))
        return self._item_cache.setdefault((path.lower(), user), answer)

    # -- Files --------------------------------------------------------------------------------

    def _file(self, request: RecordedRequest) -> Answer:
        answer = super()._file(request)
        if answer.status >= 400:
            return answer
        seconds = query_integer(request.query, "cache", 0)
        is_archive = answer.header("content-type") == "application/zip"
        if is_archive and self._cached_archives:
            answer = ranged_response(replace(answer, chunked=False), request) or answer
        if request.path.startswith(f"{self._api_path}/proxy/"):
            disposition = _in_ascii(answer.header("content-disposition") or "")
            return answer.with_headers({"content-disposition": disposition})
        if seconds:
            answer = answer.with_headers({"cache-control": f"private, max-age={seconds}"})
        return self._compressed(request, answer)

    def _forwarded(self, request: RecordedRequest, view: View) -> RecordedRequest:
        forwarded = super()._forwarded(request, view)
        secret = request.headers.get("Authorization", "").partition(" ")[2]
        if secret not in self.users:  # GitLab takes the caller for nobody
            kept = [each for each in forwarded.headers.items() if each[0] != "Authorization"]
            forwarded.headers = Headers(kept)
        return forwarded

    def _compressed(self, request: RecordedRequest, answer: Answer) -> Answer:
        """Compress a body on its way from GitLab if the client accepts it."""
        is_text = (answer.header("content-type") or "").startswith("text/")
        wanted = self._compression == "all" or (self._compression == "text" and is_text)
        if not wanted or not accepts_gzip(request):
            return answer
        vary = f"Accept-Encoding, {answer.header('vary')}"
        answer = answer.with_headers({"vary": vary, "content-encoding": "gzip"})
        return replace(answer, body=_gzipped(answer.body), length=None, chunked=True)


def _package_links(view: View, project: Project, packages: Mapping[str, str]) -> Iterator[Document]:
    for number, (name, kind) in enumerate(packages.items(), start=1):
        yield {
            "rel": "package",
            "href": f"{view.gitlab_url}/{project.path}/-/packages/{number}",
            "title": f"Package {name}",
            "package:name": name,
            "package:type": kind,
        }


def _in_ascii(disposition: str) -> str:
    """Quote the name of a file that a header cannot hold."""
    name = disposition.rpartition("''")[2]
    if name.isascii():
        return disposition
    kind = disposition.partition(";")[0]
    return f"{kind}; filename=\"{quote(name)}\"; filename*=UTF-8''{quote(name)}"


def _gzipped(body: bytes | Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(level=1, wbits=31)
    for block in (body,) if isinstance(body, bytes) else body:
        yield compressor.compress(block)
    yield compressor.flush()
