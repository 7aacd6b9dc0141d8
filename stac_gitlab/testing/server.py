"""A stand-in for SharingHub 0.4.0 over a loopback server, the faults of the real one included."""

from __future__ import annotations

import gzip
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from urllib.parse import parse_qsl, quote, unquote, urlencode

from stac_gitlab.testing import documents
from stac_gitlab.testing.access import (
    PUBLIC,
    AccessLevel,
    Catalogue,
    NumberedProject,
    TokenHolder,
    User,
    users_by_token,
)
from stac_gitlab.testing.documents import (
    GEOJSON,
    JSON,
    KNOWN_CATEGORIES,
    Category,
    Document,
    View,
    link,
)
from stac_gitlab.testing.exchange import (
    Answer,
    Headers,
    RecordedRequest,
    accepts_gzip,
    response_of,
)
from stac_gitlab.testing.faults import ArmedFault, Fault
from stac_gitlab.testing.gitlab import GitLabAPI
from stac_gitlab.testing.loopback import LoopbackServer
from stac_gitlab.testing.projects import Project
from stac_gitlab.testing.search import CRASH, RejectedError, Search, detail

GITLAB_URL = "https://gitlab.example.org"
"""The URL in provider links and error messages if no GitLab stand-in is given."""

_ITEMS_PARAMETERS = ("limit", "bbox", "datetime", "after", "mode", "gitlab_token")
_NOT_FORWARDED = frozenset({"x-gitlab-token", "private-token", "job-token"})
_GZIP_MINIMUM = 1000  # bytes; the server sends shorter documents uncompressed
_GRAPHQL = "POST /graphql"
_ERROR_PAGE = (
    "<!DOCTYPE html><html><head><title>GitLab is not responding ({status})</title></head>"
    "<body>{status}</body></html>"
)


class SharingHubServer(LoopbackServer):
    """A SharingHub over any sequence of projects.

    Args:
        projects: The projects. A `ProjectSeries` may have any length, since its projects are made
            when a page needs them.
        token: A token that sees everything.
        tokens: Tokens and their owners: a `User`, an `AccessLevel` on every project, or the name
            that `Project.members` and `Project.guests` use. Without `token` and `tokens` there is
            a default token.
        categories: The collections; by default `ai-model`, `dataset` and those of the projects.
        public: Whether callers without a token see what is not private.
        gitlab: The GitLab that links and messages name: a server or a URL.
        base_path: Path of the STAC API. The download routes are its siblings.
        page_limit: Items on a page if the request has no `limit`. There is no upper bound.

    Attributes:
        users: Users by token. Removing a token here revokes it.
        token: The first token.
        categories: The collections by id.

    Example:
        >>> from urllib.request import Request, urlopen
        >>> lakes = Project("group/lakes", {"lakes.csv": b"id"}, title="Lakes")
        >>> with SharingHubServer([lakes]) as hub:
        ...     url = hub.item_url("group/lakes")
        ...     request = Request(url, headers={"X-Gitlab-Token": hub.token})
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
        page_limit: int = 12,
    ) -> None:
        super().__init__()
        self.catalogue = Catalogue(projects)
        self.users = users_by_token(token, tokens)
        self.token = next(iter(self.users))
        self.page_limit = page_limit
        self._public = public
        self._gitlab = gitlab
        self._gitlab_api = GitLabAPI(self.catalogue, self.users, public=public)
        self._stac_path = f"/{base_path.strip('/')}"
        self._api_path = self._stac_path.rpartition("/")[0]
        if categories is None:
            categories = dict.fromkeys(("ai-model", "dataset", *self.catalogue.categories))
        self.categories = {each.id: each for each in map(_category, categories)}
        stac, get = re.escape(self._stac_path), ("GET",)
        self._endpoints: list[tuple[str, tuple[str, ...], Callable[..., Answer]]] = [
            (rf"{stac}/?", get, self._landing_page),
            (rf"{stac}/conformance", get, self._conformance),
            (rf"{stac}/collections", get, self._collections),
            (rf"{stac}/collections/([^/]+)", get, self._collection),
            (rf"{stac}/collections/([^/]+)/items", get, self._items),
            (rf"{stac}/collections/([^/]+)/items/(.*)", get, self._item),
            (rf"{stac}/search", ("GET", "POST"), self._search),
            (rf"{re.escape(self._api_path)}/(?:download|proxy)/.*", get, self._file),
        ]

    @property
    def stac_url(self) -> str:
        """The URL of the landing page, without a trailing slash."""
        return f"{self.url}{self._stac_path}"

    @property
    def gitlab_url(self) -> str:
        """The URL of the GitLab behind the server."""
        if self._gitlab is None:
            return GITLAB_URL
        return self._gitlab if isinstance(self._gitlab, str) else self._gitlab.url

    def item_url(self, path: str, collection: str = "dataset") -> str:
        """Return the URL of an item."""
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

        Requests that need no GitLab (landing page, collections, conformance) are not affected.

        Args:
            status: The status of GitLab's response. The server passes it on as JSON, without
                GitLab's `Retry-After`. `None` is a connection that GitLab closes: the server
                responds with a 500 in plain text and then closes the connection unannounced.
            text: The body of GitLab's response.
            path: Regular expression, searched in the path of the request to the server.
            times: How many requests are affected; `None` means all of them.
            after: How many requests pass before that.

        Returns:
            The armed fault.
        """

        def answer(request: RecordedRequest) -> Answer:
            try:
                self._view(request)
            except RejectedError:
                return self.answer(request)  # without a token, GitLab is not asked
            if status is None:
                return self._finished(request, CRASH)
            page = "Retry later\n" if status == 429 else _ERROR_PAGE.format(status=status)
            failed = response_of(page if text is None else text, status)
            return self._finished(request, self._passed_on(request, failed))

        stac, api = re.escape(self._stac_path), re.escape(self._api_path)
        asks_gitlab = rf"(?:{stac}/(?:collections/[^/]+/items|search)|{api}/(?:download|proxy)/)"
        both = rf"^(?=.*(?:{path})){asks_gitlab}"
        return self.inject(Fault(path=both, answer=answer, times=times, after=after))

    def answer(self, request: RecordedRequest) -> Answer:
        try:
            answer = self._response(request)
        except RejectedError as rejected:
            answer = rejected.answer
        return self._finished(request, answer)

    def _response(self, request: RecordedRequest) -> Answer:
        for pattern, methods, serve in self._endpoints:
            if match := re.fullmatch(pattern, request.path):
                if request.method in methods:
                    return serve(request, *match.groups())
                return response_of({"detail": "Method Not Allowed"}, 405, {"allow": methods[0]})
        return super().answer(request) if request.path in self._routes else detail(404, "Not Found")

    def _finished(self, request: RecordedRequest, answer: Answer) -> Answer:
        """Set the session cookie, and compress JSON if the client accepts it."""
        cookie = f"sharinghub-session={uuid.uuid4().hex}; path=/; httponly; samesite=lax"
        answer = answer.with_headers({"set-cookie": cookie})
        body = answer.body
        is_json = answer.header("content-type") == JSON
        if not is_json or not isinstance(body, bytes) or len(body) < _GZIP_MINIMUM:
            return answer
        answer = answer.with_headers({"vary": "Accept-Encoding"})
        if not accepts_gzip(request):
            return answer
        compressed = gzip.compress(body, compresslevel=1, mtime=0)
        return replace(answer, body=compressed).with_headers({"content-encoding": "gzip"})

    # -- STAC ---------------------------------------------------------------------------------

    def _landing_page(self, request: RecordedRequest) -> Answer:
        categories = list(self.categories.values())
        return response_of(documents.landing_page(self._view(request), categories))

    def _conformance(self, _request: RecordedRequest) -> Answer:
        return response_of({"conformsTo": documents.CONFORMANCE})

    def _collections(self, request: RecordedRequest) -> Answer:
        categories = list(self.categories.values())
        return response_of(documents.collections(self._view(request), categories))

    def _collection(self, request: RecordedRequest, name: str) -> Answer:
        return response_of(documents.collection(self._view(request), self._known(name)))

    def _items(self, request: RecordedRequest, name: str) -> Answer:
        view, category = self._view(request), self._known(name).id
        # The endpoint ignores the other parameters of a search.
        asked = {each: request.query[each] for each in _ITEMS_PARAMETERS if each in request.query}
        search = Search.of({**asked, "collections": category}, limit=self.page_limit)
        return self._page(request, view, f"/collections/{category}/items", search)

    def _search(self, request: RecordedRequest) -> Answer:
        view = self._view(request)
        body = request.json() if request.method == "POST" else {}
        search = Search.of({**request.query, **body}, limit=self.page_limit)
        return self._page(request, view, "/search", search)

    def _page(self, request: RecordedRequest, view: View, endpoint: str, search: Search) -> Answer:
        links = [
            link("self", GEOJSON, view.stac(endpoint, request.query)),
            link("root", JSON, view.stac("/")),
        ]
        category = self._searched_collection(search.collections)
        if category is None:
            return response_of(documents.item_page([], links, limit=search.limit, matched=0))
        links.append(link("collection", JSON, view.stac(f"/collections/{category}")))
        user = self._user(request, view)
        indices = self.catalogue.visible(category, user)
        if search.ids:
            visible = (self._visible(name, user) for name in search.ids)
            page = [each for each in visible if each and category in each.project.categories]
        else:
            ordered = search.order(self.catalogue, indices)
            found = list(islice(self._matches(search, ordered), search.limit + 1))
            page = [each for _, each in found[: search.limit]]
            if len(found) > len(page):
                query = {**search.query(endpoint), "after": found[-1][0]}
                links.append(link("next", GEOJSON, view.stac(endpoint, query)))
        features = [self._feature(view, each, category, search.mode, user) for each in page]
        matched = None if search.is_filtered else len(indices)
        return response_of(
            documents.item_page(features, links, limit=search.limit, matched=matched)
        )

    def _matches(
        self, search: Search, ordered: Sequence[int]
    ) -> Iterator[tuple[int, NumberedProject]]:
        for position in range(search.after, len(ordered)):
            found = self.catalogue[ordered[position]]
            if search.matches(found):
                yield position, found

    def _searched_collection(self, collections: Sequence[str]) -> str | None:
        if len(collections) > 1:
            text = f"Search is enabled only for one collection, got {len(collections)} collections"
            raise RejectedError(detail(422, text))
        if collections and collections[0] not in self.categories:
            raise RejectedError(detail(422, f"Category not found for: {collections[0]}"))
        return collections[0] if collections else None

    def _feature(
        self, view: View, found: NumberedProject, category: str, mode: str, user: User
    ) -> Document:
        if mode == "reference":
            return documents.reference_item(view, found, category)
        if mode == "preview":
            level = user.level_on(found.project)
            return documents.preview_item(view, found, category, level)
        if found.project.broken:
            raise RejectedError(CRASH)
        return documents.full_item(view, found, category, user.level_on(found.project))

    def _item(self, request: RecordedRequest, name: str, path: str) -> Answer:
        view, category = self._view(request), self._known(name).id
        if not path:
            return detail(400, "No feature ID given")
        user = self._user(request, view)
        found = self._visible(path, user)
        if found is None:
            return detail(404, "Not Found")
        categories = found.project.categories
        if not categories:
            return CRASH
        if category not in categories:
            return detail(
                400,
                f"Category mismatch for project '{found.project.path}', "
                f"asked '{category}' but got {', '.join(categories)} instead",
            )
        return response_of(self._feature(view, found, category, "full", user))

    # -- Callers ------------------------------------------------------------------------------

    def _view(self, request: RecordedRequest) -> View:
        """Return the view of the caller. The token is not checked: that is left to GitLab.

        Raises:
            RejectedError: There is no token, neither in the query nor in `X-Gitlab-Token`.
        """
        in_query = request.query.get("gitlab_token", "")
        token = in_query or request.headers.get("X-Gitlab-Token", "")
        if not token and not self._public:
            text = "Missing token, either use login, or pass it as header or query"
            raise RejectedError(detail(401, text))
        scheme = request.headers.get("X-Forwarded-Proto", "http")
        return View(
            origin=f"{scheme}://{request.headers.get('Host', 'localhost')}",
            stac_path=self._stac_path,
            gitlab_url=self.gitlab_url,
            token=token,
            token_in_query=bool(in_query),
        )

    def _user(self, request: RecordedRequest, view: View) -> User:
        user = self.users.get(view.token) if view.token else PUBLIC
        if user is None or not user.may_read:
            refused = response_of({"errors": [{"message": "Invalid token"}]}, 401)
            raise RejectedError(self._passed_on(request, refused))
        return user

    def _visible(self, path: str, user: User) -> NumberedProject | None:
        found = self.catalogue.find(path)
        if found is None or user.level_on(found.project) is AccessLevel.NONE:
            return None
        return found

    def _known(self, name: str) -> Category:
        if name not in self.categories:
            raise RejectedError(detail(404, "Collection not found"))
        return self.categories[name]

    # -- Files --------------------------------------------------------------------------------

    def _file(self, request: RecordedRequest) -> Answer:
        """Forward a download to GitLab."""
        view = self._view(request)
        is_proxied = request.path.startswith(f"{self._api_path}/proxy/")
        if not is_proxied and "ref" not in request.query:
            problem = {"type": "missing", "loc": ["query", "ref"], "msg": "Field required"}
            return response_of({"detail": [{**problem, "input": None}]}, 422)
        answer = self._gitlab_api.answer(self._forwarded(request, view))
        if answer.status >= 400:
            return self._passed_on(request, answer)
        if not is_proxied and not _is_latin_1(answer.header("content-disposition") or ""):
            return CRASH
        return answer

    def _forwarded(self, request: RecordedRequest, view: View) -> RecordedRequest:
        """Return the request to GitLab. An `Authorization` header replaces the token."""
        target = f"/api{self._gitlab_request(request).partition(' ')[2]}"
        path, _, query = target.partition("?")
        headers = [
            each for each in request.headers.items() if each[0].lower() not in _NOT_FORWARDED
        ]
        if view.token and "Authorization" not in request.headers:
            headers.append(("PRIVATE-TOKEN", view.token))
        return RecordedRequest(
            "GET", target, unquote(path), dict(parse_qsl(query)), Headers(headers)
        )

    def _gitlab_request(self, request: RecordedRequest) -> str:
        """Return method and target, below GitLab's `/api`, of the request that this one causes."""
        query = {name: text for name, text in request.query.items() if name != "gitlab_token"}
        ref = request.query.get("ref", "")
        api = re.escape(self._api_path)
        # Greedy, as in the real server: a folder named `repository` ends up in the project's path.
        if match := re.fullmatch(rf"{api}/download/(.*)/repository/(.*)", request.path):
            target = (
                f"projects/{_quoted(match[1].strip('/'))}/repository/files/{_quoted(match[2])}/raw"
            )
            query = {"ref": ref, "lfs": "true", **query}
        elif match := re.fullmatch(rf"{api}/download/(.*)/archive\.([^/]+)", request.path):
            target = f"projects/{_quoted(match[1].strip('/'))}/repository/archive.{match[2]}"
            query = {"sha": ref, **query}
        elif match := re.fullmatch(rf"{api}/(?:download|proxy)/(.*)", request.path):
            target = match[1]
        else:
            return _GRAPHQL
        return f"GET /v4/{target}?{urlencode(query)}"

    def _passed_on(self, request: RecordedRequest, answer: Answer) -> Answer:
        """Return an error of GitLab as SharingHub words it, without the headers of GitLab."""
        method, _, target = self._gitlab_request(request).partition(" ")
        body = answer.body.decode() if isinstance(answer.body, bytes) else ""
        if answer.header("content-type") == JSON:
            body = json.dumps(json.loads(body))
        url = f"{self.gitlab_url}/api{target}"
        return detail(answer.status, f"HTTP {answer.status} | {method} {url}: {body}")


def _category(given: str | Category) -> Category:
    if isinstance(given, Category):
        return given
    return KNOWN_CATEGORIES.get(given) or Category(given)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _is_latin_1(text: str) -> bool:
    """Return whether the server can send a header with this text."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return text.isprintable()
