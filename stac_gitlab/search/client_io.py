"""The reader that pystac-client uses: a GitLabStacIO that is a StacApiIO, too."""

from __future__ import annotations

import contextlib
import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

import pystac
import requests
from pystac_client import Client
from pystac_client.stac_api_io import StacApiIO
from urllib3.util import Retry

from stac_gitlab.auth import Origin, TokenSource, hide_token
from stac_gitlab.errors import ConfigurationError, InvalidResponseError
from stac_gitlab.files.paths import is_local
from stac_gitlab.http.responses import Document, text_of
from stac_gitlab.reading.documents import with_version
from stac_gitlab.reading.listing import is_readable, readable_collection_of
from stac_gitlab.reading.objects import (
    RemoteDocument,
    check_collection,
    check_feature,
)
from stac_gitlab.reading.paging import Page, PageRequest, Pages, with_parameters
from stac_gitlab.reading.refused_pages import read_items_page
from stac_gitlab.reading.stac_io import HREF, GitLabStacIO
from stac_gitlab.reading.untrusted_links import secure_schema
from stac_gitlab.redaction import redact, redact_text
from stac_gitlab.search.client_hooks import api_errors
from stac_gitlab.settings import (
    RetryPolicy,
    dict_of,
    expect,
    expect_text,
    timeout_pair,
    whole_number,
)

T = TypeVar("T")
# Characters. What proxies accept by default is 8 KiB for the request line.
_LONGEST_URL = 8000
RequestModifier = Callable[[requests.Request], requests.Request | None]


def open_client(
    url: str,
    token: TokenSource = None,
    *,
    stac_io: GitLabStacIO | None = None,
    modifier: Callable[[Any], None] | None = None,
    **options: Any,
) -> Client:
    """Open a STAC API with pystac-client.

    Args:
        url: The landing page.
        token: As for :class:`~stac_gitlab.GitLabStacIO`.
        stac_io: A reader whose session is shared, instead of `token` and `options`.
        modifier: As for ``pystac_client.Client.open``.
        **options: Other arguments of :class:`~stac_gitlab.GitLabStacIO`.

    Raises:
        ConfigurationError: If an option is not valid.
        STACGitLabError: If the landing page cannot be read.
    """
    try:
        known: Any = hide_token(token)
    finally:
        del token
    if stac_io is not None and (known is not None or options):
        raise ConfigurationError("Pass either stac_io=, or a token and options for a new one.")
    expect_text("url", url, wanted="the URL of a landing page")
    reader = GitLabStacIO(known, **options) if stac_io is None else stac_io
    return Client.open(url, stac_io=GitLabStacApiIO(reader), modifier=modifier)


class GitLabStacApiIO(GitLabStacIO, StacApiIO):  # type: ignore[misc]  # its session is a subclass
    """A reader for ``pystac_client.Client.open(url, stac_io=…)``.

    Its errors are those of stac_gitlab, and pystac-client's ``APIError`` as well.

    Args:
        stac_io: A reader whose session, tokens and settings are shared; or a token for a new
            reader. By default a new reader with the token of the environment.
        conformance: Deprecated and ignored, as in pystac-client.
        parameters: As in :meth:`update`.
        request_modifier: As in :meth:`update`.
        timeout: As for :class:`~stac_gitlab.GitLabStacIO`; None for the default.
        max_retries: How often a new reader retries a request; None for never. By default as its
            `retry` option says.
        **options: Options of a new reader; see :class:`~stac_gitlab.GitLabStacIO`.

    Raises:
        ConfigurationError: If an option is not valid.
    """

    def __init__(
        self,
        stac_io: GitLabStacIO | TokenSource = None,
        *,
        conformance: Any = None,
        parameters: Mapping[str, Any] | None = None,
        request_modifier: RequestModifier | None = None,
        timeout: Any = None,
        **options: Any,
    ) -> None:
        # Neither constructor of the base classes is called: one would create a second session, and
        # the other a session without tokens.
        try:
            given: Any = stac_io if isinstance(stac_io, GitLabStacIO) else hide_token(stac_io)
        finally:
            del stac_io
        if conformance is not None:
            warnings.warn(
                "The `conformance` option is deprecated and ignored: use Client.add_conforms_to.",
                FutureWarning,
                stacklevel=2,
            )
        if "max_retries" in options:
            options["retry"] = _policy_with(options.pop("max_retries"), options.get("retry"))
        if not isinstance(given, GitLabStacIO):
            given = GitLabStacIO(given, **options)
        elif options:
            raise ConfigurationError("Pass either a reader, or options for a new one.")
        self.__dict__.update(given.__dict__)
        self._timeout: Any = None
        self._parameters: dict[str, Any] = {}
        self._req_modifier: RequestModifier | None = None
        self._home: Origin | None = None
        self.update(parameters=parameters, request_modifier=request_modifier, timeout=timeout)

    def __getstate__(self) -> dict[str, Any]:
        more = {
            "_parameters": self._parameters,
            "_home": self._home,
            "_timeout": self._timeout,
        }
        return {**super().__getstate__(), **more, "_req_modifier": self._req_modifier}

    @property
    def timeout(self) -> Any:
        """Seconds to wait for a connection, and between two packets of a response, as given."""
        return self.session.timeout if self._timeout is None else self._timeout

    @timeout.setter
    def timeout(self, timeout: Any) -> None:
        self.session.timeout = timeout_pair(timeout)
        self._timeout = timeout

    def update(
        self,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        request_modifier: RequestModifier | None = None,
        timeout: Any = None,
    ) -> None:
        """Add to the settings, as ``Client.open`` does. None leaves a setting unchanged.

        Args:
            headers: More headers. Those that may hold a secret are sent where the token is sent.
            parameters: More query parameters. They are sent to the server that is opened and to
                those that get the token.
            request_modifier: Called with each ``requests.Request`` before it is sent.
            timeout: Seconds.
        """
        self.headers.update(dict_of("headers", headers or {}))
        self._parameters.update(dict_of("parameters", parameters or {}))
        if request_modifier is not None:
            expect("request_modifier", request_modifier, Callable, wanted="a function")
            self._req_modifier = request_modifier
        if timeout is not None:
            self.timeout = timeout

    # -- reading ----------------------------------------------------------------------------

    def read_text(self, source: HREF, *args: Any, **kwargs: Any) -> str:
        """Return the text at a URL, a ``file://`` URL or a local path, without tokens.

        Raises:
            STACGitLabError: If a URL cannot be read. It is an ``APIError`` as well.
            OSError: If a local file cannot be read.
        """
        if isinstance(source, pystac.Link) or is_local(str(source)):
            return super().read_text(source)
        text = self.request(str(source), *args, **kwargs)
        # The text may be a schema, with which pystac validates.
        return secure_schema(text, url=redact(str(source)))

    def read_json(self, source: HREF, *_: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON object at a URL, a ``file://`` URL or a local path.

        Args:
            source: As in :meth:`read_text`.
            **kwargs: `method`, `headers` and `parameters`, as for :meth:`request`. A POST is a
                query here and changes nothing, so it is retried.

        Raises:
            STACGitLabError: If a URL cannot be read. It is an ``APIError`` as well.
            OSError: If a local file cannot be read.
        """
        if isinstance(source, pystac.Link) or is_local(str(source)):
            return super().read_json(source)
        self._open(str(source))
        request = self._query(str(source), **kwargs)
        page = self.read_page(replace(request, write_origin=self._home))
        with api_errors():
            _check_extras(page)
        document = RemoteDocument(page.document, url=page.url)
        if document.get("conformsTo", ...) is None:
            # pystac-client takes it for a list.
            del document["conformsTo"]
        return document

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> str:
        """Send a request, and return the text of the response.

        pystac-client changes items with this method, so a POST or PATCH is sent only once.

        Args:
            href: The URL.
            method: The method, GET by default.
            headers: More headers, without secrets.
            parameters: The body of a POST, PUT or PATCH, or else query parameters.

        Raises:
            STACGitLabError: If the request fails. It is an ``APIError`` as well.
        """
        self._open(href)
        asked = _page_request(href, method=method, headers=headers, parameters=parameters)
        asked = self._modified(asked)
        with api_errors():
            text = self.session.fetch(
                asked.href,
                text_of,
                max_bytes=self.max_document_bytes,
                method=asked.method,
                headers=asked.headers,
                json=asked.body,
                write_origin=self._home,
            )
        return redact_text(text)

    def get_pages(
        self,
        url: str,
        method: str | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the pages of a search or of a list of collections, without empty ones.

        Another page may follow an empty one, at which pystac-client would stop.

        Raises:
            STACGitLabError: If a page cannot be read. It is an ``APIError`` as well.
        """
        self._open(url)
        request = self._query(url, method=method, parameters=parameters)
        with api_errors():
            self._check_is_at_home(request)
            request = replace(request, write_origin=self._home)
            first = read_items_page(self, request)
            name = "collections" if "collections" in first.document else "features"
            read_already = [first]

            def read(asked: PageRequest) -> Page:
                return read_already.pop() if read_already else read_items_page(self, asked)

            limits, gaps = self.session.limits, self.known_gaps
            pages = Pages(read, request, field_name=name, limits=limits, known_gaps=gaps)
        with contextlib.closing(pages):
            while True:
                with api_errors():
                    page = next(pages, None)
                if page is None:
                    return
                with api_errors():
                    listed = list(self._listed(page, name))
                if listed:
                    kind = {"type": "FeatureCollection"} if name == "features" else {}
                    yield {**page.document, **kind, name: listed}

    def _query(
        self,
        href: str,
        *,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> PageRequest:
        """Return the request for a document or a page, as the server of the URL understands it."""
        asked = _page_request(href, method=method, headers=headers, parameters=parameters)
        dialect = self.session.dialect_of(href)
        is_post = asked.method == "POST" and dialect.searches_by_get
        if not parameters or not (asked.method == "GET" or is_post):
            return asked
        query = dialect.query_parameters(_query_texts(parameters) if is_post else parameters)
        by_get = _page_request(href, headers=headers, parameters=query)
        if not is_post or len(by_get.href) <= _LONGEST_URL:
            return by_get
        return replace(asked, body=_changed_body(parameters, query))

    def _listed(self, page: Page, name: str) -> Iterator[RemoteDocument]:
        is_item = name == "features"
        check = check_feature if is_item else check_collection
        kind = "item" if is_item else "collection"
        for one in page.features(name):
            if not is_readable(self, one, page.redacted_url, check=check, kind=kind):
                continue
            # A collection that pystac refuses would end the listing of pystac-client.
            if is_item or readable_collection_of(self, copy.deepcopy(one), page.url) is not None:
                yield RemoteDocument(with_version(one), url=page.url)

    def _check_is_at_home(self, request: PageRequest) -> None:
        """Check that a POST goes to the server that was opened, or carries no token.

        The landing page names the URL of the search, and may name any server.
        """
        is_elsewhere = self._home is not None and Origin.of(request.href) != self._home
        if request.method == "POST" and is_elsewhere and self.credentials.allows(request.href):
            redacted = redact(request.href)
            raise InvalidResponseError(
                f"{redacted}: {self._home} names this URL for its search. Nothing was sent: a POST "
                "with the token could change something there. Open that server itself, or search "
                "with method='GET'.",
                url=redacted,
            )

    def write_text(self, dest: HREF, txt: str, *args: Any, **kwargs: Any) -> None:
        """Write a text to a local path; see :meth:`stac_gitlab.GitLabStacIO.write_text`."""
        GitLabStacIO.write_text(self, dest, txt, *args, **kwargs)

    def _fetch(
        self,
        request: PageRequest,
        parse: Callable[[Document], T],
        *,
        retry: RetryPolicy | None = None,
    ) -> T:
        modified = self._modified(request)

        def parse_response(response: Document) -> T:
            if response.url != modified.href:
                return parse(response)
            # Parameters that are added to each request, such as a signature, are left out.
            return parse(Document(request.href, response.body, response.headers, response.status))

        with api_errors():
            return super()._fetch(modified, parse_response, retry=retry)

    def _open(self, url: str) -> None:
        if self._home is None:
            self._home = Origin.of(url)
        self.credentials.bind(url)

    def _modified(self, request: PageRequest) -> PageRequest:
        """Add the parameters for all requests, and call the caller's `request_modifier`."""
        href = request.href
        if self._parameters and (Origin.of(href) == self._home or self.credentials.allows(href)):
            href = with_parameters(href, {n: str(v) for n, v in self._parameters.items()})
        if self._req_modifier is None:
            return replace(request, href=href)
        asked = requests.Request(
            request.method, href, headers=dict(request.headers), json=request.body
        )
        asked = self._req_modifier(asked) or asked
        prepared = asked.prepare()
        headers = {
            name: value
            for name, value in (prepared.headers or {}).items()
            if name.lower() != "content-length"
        }
        return PageRequest(
            prepared.url or href,
            prepared.method or request.method,
            headers,
            asked.json,
            request.write_origin,
        )


def _query_texts(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a POST as those of a GET."""
    texts = {}
    for name, value in body.items():
        if name == "sortby" and isinstance(value, list):
            signs = {"asc": "", "desc": "-"}
            texts[name] = ",".join(f"{signs[key['direction']]}{key['field']}" for key in value)
        elif isinstance(value, Mapping):
            texts[name] = json.dumps(value, separators=(",", ":"))
        else:
            texts[name] = (
                ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            )
    return texts


def _changed_body(body: Mapping[str, Any], query: Mapping[str, str]) -> dict[str, Any]:
    """Return the body of a POST with what a dialect has changed in its query parameters."""
    changed = {name: value for name, value in body.items() if name in query}
    if "datetime" in query:
        changed["datetime"] = query["datetime"]
    if "intersects" in query:
        changed["intersects"] = json.loads(query["intersects"])
    return changed


def _check_extras(page: Page) -> None:
    """Check the fields that pystac-client uses and pystac does not."""
    classes, links = page.document.get("conformsTo"), page.document.get("links")
    if classes is not None and not _all_texts(classes):
        raise InvalidResponseError(
            f"{page.redacted_url}: conformsTo is no list of texts.", url=page.redacted_url
        )
    if not isinstance(page.document.get("context", {}), Mapping):
        raise InvalidResponseError(
            f"{page.redacted_url}: context is no object.", url=page.redacted_url
        )
    methods = [k.get("method") for k in links if isinstance(k, Mapping)] if links else []
    if not _all_texts([method for method in methods if method is not None]):
        raise InvalidResponseError(
            f"{page.redacted_url}: a link with a method that is no text.", url=page.redacted_url
        )


def _policy_with(max_retries: Any, retry: RetryPolicy | None) -> RetryPolicy:
    """Return a policy with the number of retries that pystac-client has."""
    total = max_retries.total if isinstance(max_retries, Retry) else max_retries
    count = whole_number("max_retries", 0 if total in (None, False) else total, least=0)
    return (retry or RetryPolicy()).replace(max_attempts=count + 1)


def _all_texts(listed: Any) -> bool:
    return isinstance(listed, list) and all(isinstance(one, str) for one in listed)


def _page_request(
    href: str,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> PageRequest:
    """Return the request for a method and parameters of pystac-client."""
    method = (method or "GET").upper()
    if method in ("POST", "PUT", "PATCH"):
        return PageRequest(href, method, headers or {}, cast("Any", parameters))
    if parameters:
        href = requests.Request("GET", href, params=parameters).prepare().url or href
    return PageRequest(href, method, headers or {})
