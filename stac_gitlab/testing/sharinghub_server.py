"""A stand-in for SharingHub 0.4.0: which route answers what, to whom, and in which way it fails.

The documents are made in `documents` and `items`, pages are found in `pages`, files come from
`downloads`. What a real server was seen to do is done here too, bad habits included.
"""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from stac_gitlab.testing import documents, items, search
from stac_gitlab.testing.access import AccessLevel, TokenHolder, User, users_by_token
from stac_gitlab.testing.callers import Caller, caller_of
from stac_gitlab.testing.catalogue import Catalogue, Entry
from stac_gitlab.testing.documents import KNOWN_CATEGORIES, Category, Document
from stac_gitlab.testing.downloads import Compression, FileRoutes, passed_on
from stac_gitlab.testing.exchange import (
    Answer,
    RecordedRequest,
    accepts_gzip,
    json_answer,
)
from stac_gitlab.testing.faults import ArmedFault, Fault
from stac_gitlab.testing.listings import Listing, Mode
from stac_gitlab.testing.loopback import LoopbackServer
from stac_gitlab.testing.pages import Page, find_ids, find_page
from stac_gitlab.testing.projects import Project
from stac_gitlab.testing.search import Search, SearchError
from stac_gitlab.testing.viewpoint import Viewpoint

GITLAB_URL = "https://gitlab.example.org"
"""The address in provider links and error messages where no GitLab stand-in is given."""

_GZIP_MINIMUM = 1000  # bytes; shorter answers are not worth it to the server
_TOO_MANY_STATUS = 429
_TOO_MANY = "Retry later\n"
_ERROR_PAGE = (
    "<!DOCTYPE html><html><head><title>GitLab is not responding ({status})</title></head>"
    "<body>{status}</body></html>"
)


class _RejectedError(Exception):
    """A request that ends in an error document."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class SharingHubServer(LoopbackServer):
    """A SharingHub over any sequence of projects.

    Args:
        projects: The projects. Pages are made from the sequence when they are asked for, so it
            may be a `ProjectSeries` of any length.
        token: A token that sees everything. Without `token` and `tokens` there is one anyway.
        tokens: Tokens and who they belong to: a `User`, an `AccessLevel` on every project, or
            the name that `Project.members` and `Project.guests` go by.
        categories: The collections; by default `ai-model`, `dataset` and those of the projects.
        public: Answer callers without a token, showing what is not private.
        gitlab: The GitLab that links and messages name: a server or an address.
        base_path: Path of the STAC API. The download routes are its siblings.
        page_limit: Items on a page where the request names no limit. There is no upper bound.
        item_cache: Answer an item as whoever asked for it first was answered: with *their*
            token, host name and collection, as the real server does.
        compressed_downloads: What is compressed for callers that accept gzip: `"text"`, `"all"`
            or `"nothing"`. What is compressed has no length.
        cached_archives: Serve archives with a length and ranges, as after their first download.

    Attributes:
        users: Users by token. Removing one here makes the token invalid from now on.
        token: The first token.

    Example:
        >>> from urllib.request import Request, urlopen
        >>> lakes = Project("group/lakes", {"lakes.csv": b"id"}, title="Lakes")
        >>> with SharingHubServer([lakes]) as hub:
        ...     address = f"{hub.stac_url}/collections/dataset/items/group/lakes"
        ...     request = Request(address, headers={"X-Gitlab-Token": hub.token})
        ...     with urlopen(request) as response:
        ...         json.load(response)["properties"]["title"]
        'Lakes'
    """

    def __init__(
        self,
        projects: Sequence[Project] = (),
        *,
        token: str | None = None,
        tokens: Mapping[str, TokenHolder] | None = None,
        categories: Iterable[str | Category] | None = None,
        public: bool = False,
        gitlab: LoopbackServer | str | None = None,
        base_path: str = "/api/stac",
        page_limit: int = search.DEFAULT_LIMIT,
        item_cache: bool = False,
        compressed_downloads: Compression = "text",
        cached_archives: bool = False,
    ) -> None:
        super().__init__()
        self.catalogue = Catalogue(projects)
        self.users = users_by_token(token, tokens)
        self.token = next(iter(self.users))
        self._public = public
        self.page_limit = page_limit
        self._gitlab = gitlab
        self._stac_path = f"/{base_path.strip('/')}"
        self._api_path = self._stac_path.rpartition("/")[0]
        self._given_categories = None if categories is None else list(categories)
        self._categories: dict[str, Category] | None = None
        self._item_cache: dict[tuple[str, User], Document] | None = {} if item_cache else None
        self._stac_routes = self._made_stac_routes()
        self._file_routes = FileRoutes(
            self.catalogue,
            self.users,
            self._api_path,
            public=public,
            compression=compressed_downloads,
            cached_archives=cached_archives,
        )

    @property
    def stac_url(self) -> str:
        """The address of the landing page, without a trailing slash."""
        return f"{self.url}{self._stac_path}"

    @property
    def gitlab_url(self) -> str:
        """The address of the GitLab behind the server."""
        if self._gitlab is None:
            return GITLAB_URL
        return self._gitlab if isinstance(self._gitlab, str) else self._gitlab.url

    @property
    def categories(self) -> dict[str, Category]:
        """The collections by id."""
        if self._categories is None:
            given: Iterable[str | Category] | None = self._given_categories
            if given is None:
                given = dict.fromkeys(("ai-model", "dataset", *self.catalogue.categories()))
            every = (
                each if isinstance(each, Category) else KNOWN_CATEGORIES.get(each) or Category(each)
                for each in given
            )
            self._categories = {category.id: category for category in every}
        return self._categories

    def item_url(self, path: str, collection: str = "dataset") -> str:
        """The address of an item."""
        return f"{self.stac_url}/collections/{collection}/items/{path}"

    def upstream(
        self,
        status: int | None = None,
        *,
        text: str | None = None,
        path: str = "",
        times: int | None = 1,
        after: int = 0,
    ) -> ArmedFault:
        """Let the GitLab behind the server fail.

        Requests that need no GitLab (landing page, collections, conformance) are not hit.

        Args:
            status: What GitLab answers; the server passes it on in JSON and forgets GitLab's
                `Retry-After`. `None` is a GitLab that hangs up: a plain-text 500, after which
                the server closes the socket without saying so.
            text: GitLab's body.
            path: Regular expression searched in the path of the request to the server.
            times: How many requests are hit; `None` is all of them.
            after: How many pass unharmed first.

        Returns:
            The armed fault.
        """

        def answer(request: RecordedRequest) -> Answer:
            if self._caller(request) is None:
                return self.answer(request)  # turned away before GitLab is asked
            if status is None:
                return self._finished(request, search.crash())
            page = _TOO_MANY if status == _TOO_MANY_STATUS else _ERROR_PAGE.format(status=status)
            body = page if text is None else text
            asked = self._gitlab_request(request)
            return self._finished(request, passed_on(status, self.gitlab_url, asked, body))

        stac, api = re.escape(self._stac_path), re.escape(self._api_path)
        asks_gitlab = rf"(?:{stac}/(?:collections/[^/]+/items|search)|{api}/(?:download|proxy)/)"
        both = rf"^(?=.*(?:{path})){asks_gitlab}"
        return self.inject(Fault(path=both, answer=answer, times=times, after=after))

    def answer(self, request: RecordedRequest) -> Answer:
        try:
            answer = self._routed(request)
        except (_RejectedError, SearchError) as rejected:
            answer = rejected.answer
        return self._finished(request, answer)

    # Routes

    def _routed(self, request: RecordedRequest) -> Answer:
        if (answer := self._stac_answer(request)) is not None:
            return answer
        route = self._file_routes.find(request)
        if route is not None and request.method == "GET":
            caller = self._token_bearer(request)
            return self._file_routes.answer(route, request, caller, self.gitlab_url)
        if route is not None:
            return _not_allowed(("GET",))
        return super().answer(request) if request.path in self._routes else _not_found()

    def _stac_answer(self, request: RecordedRequest) -> Answer | None:
        """The answer of the STAC API; `None` where the request is not for it."""
        if not request.path.startswith(self._stac_path):
            return None
        path = request.path[len(self._stac_path) :]
        for pattern, methods, serve in self._stac_routes:
            if match := pattern.fullmatch(path):
                allowed = request.method in methods
                return serve(request, *match.groups()) if allowed else _not_allowed(methods)
        if path.endswith("/") and any(
            pattern.fullmatch(path[:-1]) for pattern, _, _ in self._stac_routes
        ):
            place, question, query = request.target.partition("?")
            location = f"{_origin(request)}{place.rstrip('/')}{question}{query}"
            return Answer(307, (("location", location),))
        return None

    def _made_stac_routes(
        self,
    ) -> list[tuple[re.Pattern[str], tuple[str, ...], Callable[..., Answer]]]:
        get = ("GET",)
        return [
            (re.compile(r"/?"), get, self._landing_page),
            (re.compile(r"/conformance"), get, self._conformance),
            (re.compile(r"/collections"), get, self._collections),
            (re.compile(r"/collections/([^/]+)"), get, self._collection),
            (re.compile(r"/collections/([^/]+)/items"), get, self._items),
            (re.compile(r"/collections/([^/]+)/items/(.*)"), get, self._item),
            (re.compile(r"/search"), ("GET", "POST"), self._search),
        ]

    def _landing_page(self, request: RecordedRequest) -> Answer:
        view = self._view(request, self._token_bearer(request))
        return json_answer(200, documents.landing_page(view, list(self.categories.values())))

    def _conformance(self, _request: RecordedRequest) -> Answer:
        return json_answer(200, {"conformsTo": documents.CONFORMANCE})

    def _collections(self, request: RecordedRequest) -> Answer:
        view = self._view(request, self._token_bearer(request))
        return json_answer(200, documents.collections(view, list(self.categories.values())))

    def _collection(self, request: RecordedRequest, name: str) -> Answer:
        view = self._view(request, self._token_bearer(request))
        return json_answer(200, documents.collection(view, self._category(name)))

    def _items(self, request: RecordedRequest, name: str) -> Answer:
        caller = self._token_bearer(request)
        category = self._category(name)
        listing = Listing.of_collection(request, category.id, default_limit=self.page_limit)
        return self._listed(request, caller, listing)

    def _search(self, request: RecordedRequest) -> Answer:
        caller = self._token_bearer(request)
        listing = Listing.of_search(request, default_limit=self.page_limit)
        return self._listed(request, caller, listing)

    def _listed(self, request: RecordedRequest, caller: Caller, listing: Listing) -> Answer:
        view = self._view(request, caller)
        names = listing.search.collections
        if not names:
            nothing = Listing(listing.endpoint, listing.asked, Search(limit=listing.search.limit))
            return json_answer(200, nothing.page(view, Page((), matched=0), []))
        if len(names) > 1:
            detail = f"Search is enabled only for one collection, got {len(names)} collections"
            return search.refusal(detail)
        if names[0] not in self.categories:
            return search.refusal(f"Category not found for: {names[0]}")
        user = self._signed_in(request, caller)
        page = self._found(listing, names[0], user)
        features = [
            self._feature(view, entry, names[0], listing.mode, user) for entry in page.entries
        ]
        return json_answer(200, listing.page(view, page, features))

    def _found(self, listing: Listing, category: str, user: User) -> Page:
        wanted = listing.search
        if wanted.ids:
            return find_ids(wanted.ids, lambda path: self._seen(path, user), category)
        field, descending = wanted.sort_field()
        return find_page(
            self.catalogue.order(category, user, field, descending=descending),
            self.catalogue.entry_at,
            wanted,
            listing.cursor,
            local=listing.mode != "reference",
        )

    def _feature(
        self, view: Viewpoint, entry: Entry, category: str, mode: Mode, user: User
    ) -> Document:
        level = user.level_on(entry.project)
        if mode == "reference":
            return items.reference_item(view, entry, category)
        if mode == "preview":
            if entry.project.broken_preview:
                raise _RejectedError(search.crash())
            return items.preview_item(view, entry, category, level)
        if entry.project.broken:
            raise _RejectedError(search.crash())
        return items.full_item(view, entry, category, level)

    def _item(self, request: RecordedRequest, name: str, path: str) -> Answer:
        caller = self._token_bearer(request)
        category = self._category(name)
        if not path:
            return _detail(400, "No feature ID given")
        user = self._signed_in(request, caller)
        entry = self._seen(path, user)
        if entry is None:
            return _not_found()
        project = entry.project
        if not project.categories:
            return search.crash()
        if category.id not in project.categories:
            got = ", ".join(project.categories)
            return _detail(
                400,
                f"Category mismatch for project '{project.path}', "
                f"asked '{category.id}' but got {got} instead",
            )
        key = (project.path, user)
        if self._item_cache is not None and key in self._item_cache:
            return json_answer(200, self._item_cache[key])
        document = self._feature(self._view(request, caller), entry, category.id, "full", user)
        if self._item_cache is not None:
            self._item_cache[key] = document
        return json_answer(200, document)

    # Who asks

    def _caller(self, request: RecordedRequest) -> Caller | None:
        return caller_of(request, self.users, public=self._public)

    def _token_bearer(self, request: RecordedRequest) -> Caller:
        """The caller, if there is any token at all: whether it is good is GitLab's to say."""
        caller = self._caller(request)
        if caller is None:
            detail = "Missing token, either use login, or pass it as header or query"
            raise _RejectedError(_detail(401, detail))
        return caller

    def _signed_in(self, request: RecordedRequest, caller: Caller) -> User:
        """The user behind a token, which GitLab is asked for."""
        if caller.user is None or not caller.may_search:
            body = json.dumps({"errors": [{"message": "Invalid token"}]})
            asked = self._gitlab_request(request)
            raise _RejectedError(passed_on(401, self.gitlab_url, asked, body))
        return caller.user

    def _seen(self, path: str, user: User) -> Entry | None:
        """The project at a path, if the user may know of it."""
        entry = self.catalogue.with_path(path)
        if entry is None or user.level_on(entry.project) is AccessLevel.NONE:
            return None
        return entry

    def _category(self, name: str) -> Category:
        category = self.categories.get(name)
        if category is None:
            raise _RejectedError(_detail(404, "Collection not found"))
        return category

    # What goes out

    def _view(self, request: RecordedRequest, caller: Caller) -> Viewpoint:
        return Viewpoint(
            origin=_origin(request),
            stac_path=self._stac_path,
            api_path=self._api_path,
            gitlab_url=self.gitlab_url,
            link_query=caller.link_query,
            file_query=caller.file_query,
        )

    def _gitlab_request(self, request: RecordedRequest) -> str:
        """Method and path of the request that the server sends to GitLab for this one."""
        route = self._file_routes.find(request)
        return "POST /graphql" if route is None else route.gitlab_request

    def _finished(self, request: RecordedRequest, answer: Answer) -> Answer:
        """Compress JSON and set the session cookie, which happens to every answer."""
        body = answer.body
        is_json = answer.header("content-type") == "application/json"
        if is_json and isinstance(body, bytes) and len(body) >= _GZIP_MINIMUM:
            answer = answer.with_headers({"vary": "Accept-Encoding"})
            if accepts_gzip(request):
                body = gzip.compress(body, compresslevel=1, mtime=0)
                answer = replace(answer, body=body).with_headers({"content-encoding": "gzip"})
        cookie = f"sharinghub-session={uuid.uuid4().hex}; path=/; httponly; samesite=lax"
        return replace(answer, headers=(*answer.headers, ("set-cookie", cookie)))


def _origin(request: RecordedRequest) -> str:
    scheme = request.headers.get("X-Forwarded-Proto", "http")
    return f"{scheme}://{request.headers.get('Host', 'localhost')}"


def _detail(status: int, detail: str) -> Answer:
    return json_answer(status, {"detail": detail})


def _not_found() -> Answer:
    return _detail(404, "Not Found")


def _not_allowed(methods: Sequence[str]) -> Answer:
    return json_answer(405, {"detail": "Method Not Allowed"}, (("allow", methods[0]),))
