"""SharingHub's routes to files: downloads, archives, and the proxy to GitLab's own API.

What GitLab serves comes from `repository`; here is what SharingHub makes of it: where it splits
paths, how it words GitLab's refusals, what it compresses in passing.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote, unquote, urlencode

from stac_gitlab.testing import repository
from stac_gitlab.testing.access import PUBLIC, User
from stac_gitlab.testing.callers import Caller, forwarded_user
from stac_gitlab.testing.catalogue import Catalogue, Entry
from stac_gitlab.testing.exchange import Answer, RecordedRequest, accepts_gzip, json_answer
from stac_gitlab.testing.search import SearchError, crash, missing, query_integer

Compression = Literal["text", "all", "nothing"]

_PROXIED_FILE = re.compile(r"projects/([^/]+)/repository/files/(.+)/raw")


@dataclass(frozen=True)
class FileRoute:
    """A route that matched: what serves it, and what the server asks GitLab for it.

    Attributes:
        serve: Makes GitLab's answer.
        gitlab_request: Method and path of the request to GitLab, below its API.
        escaped_names: Whether file names reach the answer's headers as GitLab escaped them.
            Unescaped, names in some scripts are more than the server can send.
    """

    serve: Callable[[RecordedRequest, Caller], Answer]
    gitlab_request: str
    escaped_names: bool = False


class FileRoutes:
    """The file routes of one server.

    Args:
        catalogue: The projects.
        users: Users by token.
        api_path: The path in front of `/download` and `/proxy`.
        public: Whether files that are not private are for everybody.
        compression: What is compressed for callers that accept gzip.
        cached_archives: Whether archives have a length and ranges.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        users: Mapping[str, User],
        api_path: str,
        *,
        public: bool,
        compression: Compression,
        cached_archives: bool,
    ) -> None:
        self._catalogue = catalogue
        self._users = users
        self._public = public
        self._compression = compression
        self._cached_archives = cached_archives
        api = re.escape(api_path)
        self._patterns = (
            # Greedy, as in the real server: a folder `repository` in the repository wins.
            (re.compile(rf"{api}/download/(.*)/repository/(.*)"), self._file),
            (re.compile(rf"{api}/download/(.*)/archive\.([^/]+)"), self._archive),
            (re.compile(rf"{api}/proxy/(.*)"), self._proxied),
        )

    def find(self, request: RecordedRequest) -> FileRoute | None:
        """The route of a request, if it has one here."""
        for pattern, make in self._patterns:
            if match := pattern.fullmatch(request.path):
                return make(request, *match.groups())
        return None

    def answer(
        self, route: FileRoute, request: RecordedRequest, caller: Caller, gitlab_url: str
    ) -> Answer:
        """What the server answers on a route.

        Raises:
            SearchError: A query parameter is missing or wrong.
        """
        seconds = query_integer(request.query, "cache", 0)
        try:
            answer = route.serve(request, caller)
        except repository.RefusedError as refused:
            said = refused.refusal.document
            body = said if isinstance(said, str) else json.dumps(said)
            return passed_on(refused.refusal.status, gitlab_url, route.gitlab_request, body)
        disposition = answer.header("content-disposition") or ""
        if not _fits_a_header(disposition):
            if not route.escaped_names:
                return crash()
            answer = answer.with_headers({"content-disposition": _escaped(disposition)})
        if seconds and not route.escaped_names:
            answer = answer.with_headers({"cache-control": f"private, max-age={seconds}"})
        return self._compressed(request, answer)

    def _file(self, request: RecordedRequest, project: str, path: str) -> FileRoute:
        def serve(request: RecordedRequest, caller: Caller) -> Answer:
            ref = _ref(request)
            entry = self._readable(request, caller, self._catalogue.with_path(project))
            return repository.raw_file(entry, path, ref, lfs=True, request=request)

        query = {"ref": request.query.get("ref", ""), "lfs": "true", **_passed_query(request)}
        files = f"{_quoted(project.strip('/'))}/repository/files/{_quoted(path)}"
        return FileRoute(serve, f"GET /v4/projects/{files}/raw?{urlencode(query)}")

    def _archive(self, request: RecordedRequest, project: str, form: str) -> FileRoute:
        def serve(request: RecordedRequest, caller: Caller) -> Answer:
            ref = _ref(request)
            entry = self._readable(request, caller, self._catalogue.with_path(project))
            if form != "zip":
                raise repository.RefusedError(repository.NO_FILE)
            return repository.archive(entry, ref, cached=self._cached_archives, request=request)

        query = {"sha": request.query.get("ref", ""), **_passed_query(request)}
        archive = f"{_quoted(project.strip('/'))}/repository/archive.{form}"
        return FileRoute(serve, f"GET /v4/projects/{archive}?{urlencode(query)}")

    def _proxied(self, request: RecordedRequest, endpoint: str) -> FileRoute:
        def serve(request: RecordedRequest, caller: Caller) -> Answer:
            # The path was unquoted once on its way here: the quoting that is left is for GitLab.
            match = _PROXIED_FILE.fullmatch(endpoint)
            if match is None or "/" in match[2]:
                raise repository.RefusedError(repository.NO_ROUTE)
            entry = self._readable(request, caller, self._catalogue.named(unquote(match[1])))
            return repository.raw_file(
                entry,
                unquote(match[2]),
                request.query.get("ref"),
                lfs=request.query.get("lfs") == "true",
                request=request,
            )

        query = urlencode(_passed_query(request))
        return FileRoute(serve, f"{request.method} /v4/{endpoint}?{query}", escaped_names=True)

    def _readable(self, request: RecordedRequest, caller: Caller, entry: Entry | None) -> Entry:
        """The entry, if GitLab lets the caller read its repository.

        Raises:
            RefusedError: It does not.
        """
        user = forwarded_user(request, caller, self._users)
        if user is None:
            raise repository.RefusedError(repository.UNAUTHORIZED)
        if user is PUBLIC and not self._public:
            raise repository.RefusedError(repository.NO_PROJECT)
        return repository.check_readable(entry, user)

    def _compressed(self, request: RecordedRequest, answer: Answer) -> Answer:
        """A body on its way from GitLab, compressed in passing for those who accept it."""
        is_text = (answer.header("content-type") or "").startswith("text/")
        wanted = self._compression == "all" or (self._compression == "text" and is_text)
        if not wanted or not accepts_gzip(request):
            return answer
        vary = f"Accept-Encoding, {answer.header('vary')}"
        answer = answer.with_headers({"vary": vary, "content-encoding": "gzip"})
        return replace(answer, body=_gzipped(answer.body), length=None, chunked=True)


def passed_on(status: int, gitlab_url: str, gitlab_request: str, body: str) -> Answer:
    """GitLab's error as SharingHub words it; of GitLab's headers nothing is left."""
    method, _, path = gitlab_request.partition(" ")
    detail = f"HTTP {status} | {method} {gitlab_url}/api{path}: {body}"
    return json_answer(status, {"detail": detail})


def _ref(request: RecordedRequest) -> str:
    if "ref" not in request.query:
        raise SearchError(missing("ref"))
    return request.query["ref"]


def _passed_query(request: RecordedRequest) -> dict[str, str]:
    return {name: value for name, value in request.query.items() if name != "gitlab_token"}


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _fits_a_header(text: str) -> bool:
    """Whether the server can put a file's name into a header: Latin-1 is as far as it goes."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return text.isprintable()


def _escaped(disposition: str) -> str:
    kind, name = disposition.partition(";")[0], quote(disposition.rpartition("''")[2])
    return f"{kind}; filename=\"{name}\"; filename*=UTF-8''{name}"


def _gzipped(body: bytes | Iterable[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(level=1, wbits=31)
    for block in (body,) if isinstance(body, bytes) else body:
        yield compressor.compress(block)
    yield compressor.flush()
