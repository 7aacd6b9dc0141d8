"""The bridge to pystac-client: its search, over our session.

::

    from stac_gitlab.search import open_client

    client = open_client("https://stac.example.org", token)
    search = client.search(collections=["sentinel-2"], bbox=[5, 46, 8, 47], max_items=10)

pystac-client wants a ``StacApiIO`` of its own, and looks at the type. :class:`GitLabStacApiIO` is
one, and is a :class:`~stac_gitlab.GitLabStacIO` as well: tokens go where they belong, requests are
tried again, pages are followed to their end. Needs the extra ``client``.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

import pystac
import requests

from stac_gitlab import errors
from stac_gitlab.auth import Origin, TokenSource, hide_token
from stac_gitlab.errors import ConfigurationError, InvalidResponseError, STACGitLabError
from stac_gitlab.files.paths import is_local
from stac_gitlab.http.responses import Document, text_of
from stac_gitlab.reading.documents import check_stac, with_version
from stac_gitlab.reading.listing import is_readable, readable_collection_of
from stac_gitlab.reading.objects import (
    RemoteDocument,
    check_collection,
    check_feature,
    explain_pystac_errors,
)
from stac_gitlab.reading.paging import Page, PageRequest, Pages, with_parameters
from stac_gitlab.reading.pystac_hooks import install_for_client
from stac_gitlab.reading.stac_io import HREF, GitLabStacIO
from stac_gitlab.reading.untrusted_links import secure_schema
from stac_gitlab.redaction import redact, redact_text
from stac_gitlab.settings import RetryPolicy, dict_of, expect, expect_text, timeout_pair

try:
    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "stac_gitlab.search needs pystac-client: pip install 'stac-gitlab[client]'.",
        name=error.name,
    ) from error

__all__ = ["GitLabStacApiIO", "RequestModifier", "open_client"]
T = TypeVar("T")
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
        stac_io: A reader to share, in place of `token` and `options`.
        modifier: As for ``pystac_client.Client.open``.
        **options: What else :class:`~stac_gitlab.GitLabStacIO` takes.

    Raises:
        ConfigurationError: If an option makes no sense.
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

    Its errors are ours, and pystac-client's ``APIError`` as well.

    Args:
        stac_io: The reader whose session, tokens and settings are shared; by default a new one,
            with the token from the environment. A token makes a new one, too.
        parameters: As in :meth:`update`.
        request_modifier: As in :meth:`update`.
        timeout: As for :class:`~stac_gitlab.GitLabStacIO`; None for what is usual there.
        **options: For the new one; see :class:`~stac_gitlab.GitLabStacIO`.

    Raises:
        ConfigurationError: If an option makes no sense.
    """

    def __init__(
        self,
        stac_io: GitLabStacIO | TokenSource = None,
        *,
        parameters: Mapping[str, Any] | None = None,
        request_modifier: RequestModifier | None = None,
        timeout: Any = None,
        **options: Any,
    ) -> None:
        # Neither constructor of the base classes: one would make a second session, and the other a
        # session without tokens.
        try:
            given: Any = stac_io if isinstance(stac_io, GitLabStacIO) else hide_token(stac_io)
        finally:
            del stac_io
        if not isinstance(given, GitLabStacIO):
            given = GitLabStacIO(given, **options)
        elif options:
            raise ConfigurationError("Pass either a reader, or options for a new one.")
        self.__dict__.update(given.__dict__)
        self._parameters: dict[str, Any] = {}
        self._req_modifier: RequestModifier | None = None
        self._home: Origin | None = None
        self.update(parameters=parameters, request_modifier=request_modifier, timeout=timeout)

    def __getstate__(self) -> dict[str, Any]:
        more = {"_parameters": self._parameters, "_home": self._home}
        return {**super().__getstate__(), **more, "_req_modifier": self._req_modifier}

    @property
    def timeout(self) -> Any:
        """Seconds to wait for a connection, and between two packets of an answer."""
        return self.session.timeout

    @timeout.setter
    def timeout(self, timeout: Any) -> None:
        self.session.timeout = timeout_pair(timeout)

    def update(
        self,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        request_modifier: RequestModifier | None = None,
        timeout: Any = None,
    ) -> None:
        """Add to the settings, as ``Client.open`` does; what is None stays as it is.

        Args:
            headers: More headers; those that may hold a secret go where the token goes.
            parameters: More query parameters, sent to the server that is opened and to those that
                get the token.
            request_modifier: Called with every ``requests.Request`` before it is sent.
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
            STACGitLabError: If a URL cannot be read. It is an ``APIError``, too.
            OSError: If a local file cannot be read.
        """
        if isinstance(source, pystac.Link) or is_local(str(source)):
            return super().read_text(source)
        text = self.request(str(source), *args, **kwargs)
        # pystac validates with what it reads this way.
        return secure_schema(text, url=redact(str(source)))

    def read_json(self, source: HREF, *_: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the JSON object at a URL, a ``file://`` URL or a local path.

        Args:
            source: As in :meth:`read_text`.
            **kwargs: `method`, `headers` and `parameters`, as :meth:`request` takes them. A POST
                asks here, and does not create: it is tried again.

        Raises:
            STACGitLabError: If a URL cannot be read. It is an ``APIError``, too.
            OSError: If a local file cannot be read.
        """
        if isinstance(source, pystac.Link) or is_local(str(source)):
            return super().read_json(source)
        request = _page_request(str(source), **kwargs)
        self._open(request.href)
        page = self.read_page(replace(request, write_origin=self._home))
        with _api_errors():
            _check_extras(page)
        return RemoteDocument(page.document, url=page.url)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> str:
        """Send a request, and return the text of the answer.

        pystac-client changes items this way: a POST or PATCH is sent once.

        Args:
            href: The URL.
            method: GET by default.
            headers: More headers. None of them is a secret.
            parameters: The body of a POST, PUT or PATCH; query parameters otherwise.

        Raises:
            STACGitLabError: If it fails. It is an ``APIError``, too.
        """
        self._open(href)
        asked = _page_request(href, method=method, headers=headers, parameters=parameters)
        asked = self._modified(asked)
        with _api_errors():
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
        """Yield the pages of a search or a list of collections, empty ones left out.

        pystac-client stops at an empty page, although another may follow.

        Raises:
            STACGitLabError: If a page cannot be read. It is an ``APIError``, too.
        """
        self._open(url)
        request = _page_request(url, method=method, parameters=parameters)
        with _api_errors():
            self._check_is_at_home(request)
            request = replace(request, write_origin=self._home)
            first = self.read_page(request)
            name = "collections" if "collections" in first.document else "features"
            read_already = [first]

            def read(asked: PageRequest) -> Page:
                return read_already.pop() if read_already else self.read_page(asked)

            pages = Pages(read, request, field_name=name, limits=self.session.limits)
        with contextlib.closing(pages):
            while True:
                with _api_errors():
                    page = next(pages, None)
                if page is None:
                    return
                with _api_errors():
                    listed = list(self._listed(page, name))
                if listed:
                    kind = {"type": "FeatureCollection"} if name == "features" else {}
                    yield {**page.document, **kind, name: listed}

    def _listed(self, page: Page, name: str) -> Iterator[RemoteDocument]:
        is_item = name == "features"
        check = check_feature if is_item else check_collection
        kind = "item" if is_item else "collection"
        for one in page.features(name):
            if not is_readable(self, one, page.redacted_url, check=check, kind=kind):
                continue
            # pystac-client ends the listing where pystac refuses a collection, so try it first.
            if is_item or readable_collection_of(self, copy.deepcopy(one), page.url) is not None:
                yield RemoteDocument(with_version(one), url=page.url)

    def _check_is_at_home(self, request: PageRequest) -> None:
        """Check that a POST goes to the server that was opened, or takes no token along.

        Where a search goes is written in the landing page, which may be a stranger's.
        """
        is_elsewhere = self._home is not None and Origin.of(request.href) != self._home
        if request.method == "POST" and is_elsewhere and self.credentials.allows(request.href):
            redacted = redact(request.href)
            raise InvalidResponseError(
                f"{redacted}: {self._home} wants a search to be sent there. It is not: with "
                "our token "
                "it could change something. Open that server itself, or search with method='GET'.",
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
            # What is added to each request, perhaps a signature, is not part of the URL.
            return parse(Document(request.href, response.body, response.headers, response.status))

        with _api_errors():
            return super()._fetch(modified, parse_response, retry=retry)

    def _open(self, url: str) -> None:
        if self._home is None:
            self._home = Origin.of(url)
        self.credentials.bind(url)

    def _modified(self, request: PageRequest) -> PageRequest:
        """Add the parameters that go with every request, and let the caller's function see it."""
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


def _from_dict(stock: Any) -> Callable[..., Any]:
    """Explain what pystac refuses of our documents; pystac-client calls it by itself."""

    def from_dict(cls: Any, d: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(d, RemoteDocument):
            return stock.__func__(cls, d, *args, **kwargs)
        with _api_errors(), explain_pystac_errors(d.url, d):
            check_stac(with_version(d), url=redact(d.url))
            return stock.__func__(cls, d, *args, **kwargs)

    return from_dict


def _items_from_dict(stock: Any) -> Callable[..., Any]:
    def from_dict(cls: Any, d: Any, *args: Any, **kwargs: Any) -> Any:
        features = d.get("features") if isinstance(d, dict) else None
        ours = [one for one in features or () if isinstance(one, RemoteDocument)]
        if not ours:
            return stock.__func__(cls, d, *args, **kwargs)
        with _api_errors(), explain_pystac_errors(ours[0].url, d):
            for feature in ours:
                check_feature(feature, url=redact(feature.url))
            return stock.__func__(cls, d, *args, **kwargs)

    return from_dict


def _check_extras(page: Page) -> None:
    """Check what pystac-client looks at in a document, and pystac does not."""
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


def _all_texts(listed: Any) -> bool:
    return isinstance(listed, list) and all(isinstance(one, str) for one in listed)


def _page_request(
    href: str,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> PageRequest:
    """Return what pystac-client means by a method and parameters."""
    method = (method or "GET").upper()
    if method in ("POST", "PUT", "PATCH"):
        return PageRequest(href, method, headers or {}, cast("Any", parameters))
    if parameters:
        href = requests.Request("GET", href, params=parameters).prepare().url or href
    return PageRequest(href, method, headers or {})


# -- errors -----------------------------------------------------------------------------------


def _also_api_error(cls: type[STACGitLabError]) -> type[STACGitLabError]:
    """Return a class that is one of our errors, and the one that users of pystac-client catch."""
    made = type(cls.__name__, (cls, APIError), {"__doc__": cls.__doc__, "status_code": None})
    # Under a name of this module, so that an error survives a pickle.
    made.__module__, made.__qualname__ = __name__, f"_API{cls.__name__}"
    globals()[made.__qualname__] = made
    return cast("type[STACGitLabError]", made)


_API_ERRORS: dict[type[STACGitLabError], type[STACGitLabError]] = {
    cls: _also_api_error(cls)
    for cls in vars(errors).values()
    if isinstance(cls, type)
    and issubclass(cls, (errors.HTTPStatusError, errors.NetworkError, errors.InvalidResponseError))
}


@contextlib.contextmanager
def _api_errors() -> Iterator[None]:
    """Turn what goes wrong at a server into the same error that is an ``APIError``, too."""
    try:
        yield
    except STACGitLabError as error:
        cls = _API_ERRORS.get(type(error))
        if cls is None:
            raise
        both = cls.__new__(cls, *error.args)
        both.args = error.args
        both.__dict__.update(error.__dict__)
        raise both.with_traceback(error.__traceback__) from error.__cause__


install_for_client(_from_dict, _items_from_dict)
