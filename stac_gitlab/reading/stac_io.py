"""GitLabStacIO: the pystac.StacIO that reads authenticated STAC.

It turns hrefs into documents and pystac objects. The session sends the requests. ``pystac_hooks``
adds what pystac's own classes lack for an API.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Self, TypeVar

import pystac
import requests

from stac_gitlab.auth import Credentials, Origin, TokenSource, hide_token, hide_tokens, parse_hosts
from stac_gitlab.errors import (
    ConfigurationError,
    InvalidResponseError,
    OfflineWarning,
    RemoteWriteError,
)
from stac_gitlab.files.partial_file import write_atomically
from stac_gitlab.files.paths import is_local, local_path, read_local
from stac_gitlab.http.document_cache import CachedDocuments, DocumentCache, cache_in
from stac_gitlab.http.responses import Document, header_without_secret, text_of
from stac_gitlab.http.session import GitLabSession
from stac_gitlab.notebook import html_fields
from stac_gitlab.reading.documents import check_stac, parse_json
from stac_gitlab.reading.objects import (
    OwnDocument,
    RemoteDocument,
    explain_pystac_errors,
    make_own_root,
    release_document,
)
from stac_gitlab.reading.paging import Page, PageRequest
from stac_gitlab.reading.untrusted_links import (
    check_followable,
    secure_links,
    secure_schema,
    upgrade_links,
    with_secured_extensions,
)
from stac_gitlab.redaction import redact, redact_document, redact_text, strip_token_parameters
from stac_gitlab.settings import (
    DEFAULT_TIMEOUT,
    OFFLINE_VARIABLE,
    Limits,
    RetryPolicy,
    dict_of,
    expect,
    offline_setting,
    path_of,
    whole_number,
)

HREF = str | os.PathLike[str]
T = TypeVar("T")
# A `read_text` of these modules reads over the session. Any other is one of a subclass.
_OWN_MODULES = (__name__, "stac_gitlab.search.client_io")
# The URL of a document that was read ahead, and that document; see `read_ahead`.
ready_document: ContextVar[tuple[str, Future[dict[str, Any]]] | None] = ContextVar(
    "stac_gitlab_ready_document", default=None
)
# The attributes of a session and of a reader that a pickle holds, besides the credentials.
_KEPT_OF_SESSION = ("timeout", "retry", "limits", "only", "offline")
_KEPT = ("cache", "page_size", "on_bad_item", "max_document_bytes", "allow_pickle_token")


class GitLabStacIO(pystac.StacIO):
    """Reads STAC behind a GitLab token, and writes it to local files.

    Calling an instance returns the instance, because ``pystac.StacIO.set_default`` needs a
    callable. An instance has one pool of connections. Threads may share it. Close it when you are
    done, or use it in a ``with`` statement.

    Args:
        token: A token, a function that returns one (asked again after a 401), or None for the
            first of ``STAC_GITLAB_TOKEN``, ``GITLAB_TOKEN`` and ``CI_JOB_TOKEN`` that the
            environment holds. Without any of them requests are anonymous.
        base_url: URL of the server that gets the token, with its path if it is below one; by
            default ``STAC_GITLAB_URL``. Without `base_url` and `hosts`, that is the first server
            read.
        hosts: More servers that get the token, as URLs or bare host names. Or a mapping from these
            to the header (``"Authorization: Bearer"``) or the token that the server wants, to a
            tuple of both, or to None.
        only_hosts: The servers that requests are sent to, besides those that get the token; None
            for every server that links, assets and redirects lead to.
        header: ``"auto"`` for the header that the server behind the URL expects, a header name
            (``"x-api-key"``), or a name and a scheme (``"Authorization: Bearer"``).
        headers: More headers. Those that may hold a secret go where the token goes.
        timeout: Seconds to wait for a connection, and between two packets of a response.
        retry: When requests are tried again, and how long they may take.
        limits: Upper limits on what is accepted from servers, besides `max_document_bytes`.
        session: A ``requests.Session`` whose adapters, proxies and certificates to use. It must
            have no credentials.
        cache: A folder in which documents are kept, or a :class:`~stac_gitlab.DocumentCache`. They
            are requested again only if the server does not confirm them. None to keep none.
        offline: Whether documents come from `cache` only, and nothing is requested. None for what
            ``STAC_GITLAB_OFFLINE`` says, which is read once.
        page_size: Number of items to request at a time.
        on_bad_item: ``"warn"`` to leave out an item, collection or catalog of a listing that cannot
            be read, with an :class:`~stac_gitlab.UnreadableItemWarning`, or ``"raise"``.
        max_document_bytes: Maximum size of one document in bytes, decompressed.
        allow_pickle_token: Whether pickles of this object contain a token given as a string.

    Raises:
        ConfigurationError: If an argument makes no sense.

    Example:
        >>> import pystac
        >>> from stac_gitlab import GitLabStacIO
        >>> stac_io = GitLabStacIO("glpat-example", base_url="https://hub.example.org")
        >>> stac_io
        <GitLabStacIO with a token for https://hub.example.org>
        >>> pystac.StacIO.set_default(stac_io)
        >>> pystac.StacIO.default() is stac_io
        True
    """

    def __init__(
        self,
        token: TokenSource = None,
        *,
        base_url: str | None = None,
        hosts: Iterable[str] | None = None,
        only_hosts: Iterable[str] | None = None,
        header: str = "auto",
        headers: Mapping[str, str] | None = None,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        session: requests.Session | None = None,
        cache: str | os.PathLike[str] | DocumentCache | None = None,
        offline: bool | None = None,
        page_size: int = 100,
        on_bad_item: str = "warn",
        max_document_bytes: int = 64 * 2**20,
        allow_pickle_token: bool = False,
    ) -> None:
        try:
            known = hide_token(token)
        finally:
            del token
        hosts = hide_tokens(hosts)
        if on_bad_item not in ("warn", "raise"):
            raise ConfigurationError(f"on_bad_item={on_bad_item!r}: choose 'warn' or 'raise'.")
        whole_number("page_size", page_size, least=1)
        whole_number("max_document_bytes", max_document_bytes, least=1)
        self.credentials = Credentials(known, base_url=base_url, hosts=hosts, header=header)
        self.session = GitLabSession(
            self.credentials,
            timeout=timeout,
            retry=retry,
            limits=limits,
            only=None if only_hosts is None else parse_hosts("only_hosts", only_hosts),
            offline=offline_setting(offline),
            transport=session,
        )
        self.cache = cache_in(cache)
        self._documents = CachedDocuments(self.session, self.cache)
        self._is_warned = offline is not None
        self.page_size = page_size
        self.on_bad_item = on_bad_item
        self.max_document_bytes = max_document_bytes
        self.allow_pickle_token = allow_pickle_token
        # Hashes of the listings that ended early, so that each is warned about once.
        self.known_gaps: set[int] = set()
        # What is known about pages that the server refused, by URL; see `refused_pages`.
        self.refusals: dict[str, Any] = {}
        # How often a listing was incomplete so far, or left something out.
        self.omissions = 0
        super().__init__(dict_of("headers", headers or {}))

    def __call__(self) -> GitLabStacIO:
        return self

    def __repr__(self) -> str:
        if "credentials" not in self.__dict__:
            return "<GitLabStacIO, not initialized>"
        origins = ", ".join(sorted(map(str, self.credentials.origins))) or "the first server read"
        token = "a token" if self.credentials.available else "no token"
        return f"<GitLabStacIO with {token} for {origins}>"

    def _repr_html_(self) -> str:
        fields = {
            "token": "yes" if self.credentials.available else "none: requests are anonymous",
            "for": ", ".join(sorted(map(str, self.credentials.origins))) or "the first server read",
            "cache": None if self.cache is None else self.cache.folder,
            "offline": self.session.offline,
            "page size": self.page_size,
        }
        return html_fields("GitLabStacIO", fields)

    # -- headers, life, copies --------------------------------------------------------------

    @property
    def headers(self) -> dict[str, str]:
        """The user's own headers, as in pystac. Secrets among them go where the token goes."""
        return self.credentials.headers

    @headers.setter
    def headers(self, headers: Mapping[str, str] | None) -> None:
        self.credentials.headers = dict_of("headers", headers or {})

    def close(self) -> None:
        """Close all connections. A later request opens new ones."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __copy__(self) -> GitLabStacIO:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> GitLabStacIO:
        # A copied catalog keeps reading over the same connections, with the same token.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {
            "credentials": self.credentials.state(with_secrets=self.allow_pickle_token),
            "session": {name: getattr(self.session, name) for name in _KEPT_OF_SESSION},
            "_is_warned": self._is_warned,
            **{name: getattr(self, name) for name in _KEPT},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.credentials = Credentials.from_state(state.pop("credentials"))
        self.session = GitLabSession(self.credentials, **state.pop("session"))
        self._documents = CachedDocuments(self.session, state["cache"])
        self.__dict__.update(state)
        self.known_gaps = set()
        self.refusals = {}
        self.omissions = 0

    # -- reading ----------------------------------------------------------------------------

    def read_text(self, source: HREF, *_: Any, **__: Any) -> str:
        """Return the text at a URL, a ``file://`` URL or a local path, without tokens.

        Args:
            source: The href. Of a ``pystac.Link``, its method, headers and body count too.

        Raises:
            STACGitLabError: If a URL cannot be read.
            OSError: If a local file cannot be read.
        """
        request = self._request_for(source)
        if is_local(request.href):
            text = read_local(request.href).decode("utf-8")
        else:
            self.credentials.bind(request.href)
            redacted = redact(request.href)
            text = secure_schema(self._fetch(request, text_of), url=redacted)
        return redact_text(text)

    def read_json(self, source: HREF, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the JSON object at a URL, a ``file://`` URL or a local path.

        Tokens that a server wrote into its response are removed, and what claims to be STAC is
        checked for the fields that pystac needs.

        Args:
            source: As in :meth:`read_text`.

        Raises:
            STACGitLabError: If a URL cannot be read, or the response cannot be used.
            InvalidResponseError: If a local file does not hold a JSON object.
            OSError: If a local file cannot be read.
        """
        request = self._request_for(source)
        if is_local(request.href):
            if self._has_own_parser():
                return self.json_loads(self.read_text(source))
            body = read_local(request.href)
            document = parse_json(body, url=request.href, limits=self.session.limits)
            return redact_document(document, body, url=request.href)
        self.credentials.bind(request.href)
        page = self.read_page(request)
        return RemoteDocument(page.document, url=page.url)

    def read_page(self, request: PageRequest, *, retry: RetryPolicy | None = None) -> Page:
        """Return one remote document, and the URL that it came from after all redirects."""
        if self._has_own_parser() and request == PageRequest(request.href):
            text = self.read_text(request.href)
            return self._page(request, request.href, self.json_loads(text), text.encode())

        def page(response: Document) -> Page:
            redacted = redact(response.url)
            document = parse_json(response.body, url=redacted, limits=self.session.limits)
            read = self._page(request, response.url, document, response.body)
            return replace(read, etag=header_without_secret("ETag", response.headers))

        headers = self.credentials.without_secret_names(request.headers)
        return self._fetch(replace(request, headers=headers), page, retry=retry)

    def _page(
        self, request: PageRequest, received: str, document: dict[str, Any], body: bytes
    ) -> Page:
        """Return a document without secrets, corrected, and checked."""
        redacted = redact(received)
        document = redact_document(document, body, url=redacted)
        dialect = self.session.dialect_of(request.href)
        dialect.correct(document, request.href)
        if received == _as_sent(request.href):
            received = request.href
        url = dialect.base_href(request.href, received)
        if b"http:" in body.lower():
            upgrade_links(document, url=url)
        secure_links(document, url=url)
        check_stac(document, url=redacted)
        return Page(url, document)

    def _has_own_parser(self) -> bool:
        """Return whether a subclass reads or parses texts in its own way, as pystac suggests."""
        cls = type(self)
        return (
            _defining_module(cls, "read_text") not in _OWN_MODULES
            or _defining_module(cls, "json_loads") != pystac.StacIO.__module__
        )

    def read_stac_object(
        self, source: HREF, root: pystac.Catalog | None = None, *_: Any, **__: Any
    ) -> pystac.STACObject:
        """Return the Catalog, Collection or Item at `source`, which keeps this reader.

        Raises:
            NotSTACError: If it is none of them.
            STACGitLabError: As for :meth:`read_json`.
        """
        href = _href(source)
        ready = ready_document.get()
        is_ready = ready is not None and ready[0] == href
        document = ready[1].result() if ready and is_ready else self.read_json(source)
        href = getattr(document, "url", href)
        document = OwnDocument(document)
        with explain_pystac_errors(href, document):
            found = self.stac_object_from_dict(document, href, root, preserve_dict=False)
        release_document(found)
        if root is None:
            make_own_root(found, href)
        return found

    def _request_for(self, source: HREF) -> PageRequest:
        """Return the request for a source. A link may name a method, headers and a body.

        Whoever wrote the link may be a stranger, so a POST gets no secrets, and one from a document
        is not sent at all to a server where it could get them.
        """
        href = _href(source)
        if not isinstance(source, pystac.Link) or is_local(href):
            return PageRequest(href)
        link = {**source.extra_fields, "href": href, "merge": False}
        request = PageRequest(href).followed_by(link, page_url=href)
        if request.method == "POST" and source.owner and self.credentials.allows(href):
            redacted = redact(href)
            raise InvalidResponseError(
                f"{redacted}: a link in a document describes a POST to a server that gets your "
                "token. It is not sent. Use STACAPI or stac_gitlab.search.open_client.",
                url=redacted,
            )
        headers = self.credentials.without_secret_names(request.headers)
        return replace(request, headers=headers, write_origin=None)

    def _fetch(
        self,
        request: PageRequest,
        parse: Callable[[Document], T],
        *,
        retry: RetryPolicy | None = None,
    ) -> T:
        check_followable(request.href)
        if self.session.offline is not None and not self._is_warned:
            self._is_warned = True
            warnings.warn(
                f"{OFFLINE_VARIABLE} is set: documents come from the cache, as they were when they "
                "were last read. Nothing is requested.",
                OfflineWarning,
                stacklevel=3,
            )
        return self._documents.fetch(
            request.href,
            parse,
            max_bytes=self.max_document_bytes,
            method=request.method,
            headers=request.headers,
            json=request.body,
            write_origin=request.write_origin,
            # A POST of the STAC API asks for a page: sending it twice changes nothing.
            idempotent=True,
            retry=retry,
        )

    # -- writing ----------------------------------------------------------------------------

    def json_dumps(self, json_dict: dict[str, Any], *args: Any, **kwargs: Any) -> str:
        """Return a document as JSON, with all the numbers that JSON can hold.

        Others (NaN, infinities) become null.
        """
        try:
            text = super().json_dumps(json_dict, *args, **kwargs)
        except TypeError:
            # pystac uses orjson if it is installed. It has no integers of more than 64 bits.
            text = json.dumps(json_dict, indent=2)
        if "NaN" in text or "Infinity" in text:
            # The standard library writes them as they are. No strict parser reads them.
            text = json.dumps(_with_finite_numbers(json_dict), indent=2)
        return text

    def save_json(self, dest: HREF, json_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Write a document to a local path or ``file://`` URL.

        Names of extensions that a remote document takes for paths are resolved against its URL.

        Raises:
            RemoteWriteError: If `dest` is a URL.
            OSError: If the file cannot be written; what stood there before is still there.
        """
        super().save_json(dest, with_secured_extensions(json_dict), *args, **kwargs)

    def write_text(self, dest: HREF, txt: str, *_: Any, **__: Any) -> None:
        """Write a text to a local path or ``file://`` URL, whole or not at all.

        Missing folders are made.

        Raises:
            RemoteWriteError: If `dest` is a URL.
            OSError: If the file cannot be written; what stood there before is still there.
        """
        href = _href(dest, name="dest", wanted="a path")
        expect("txt", txt, str, wanted="a text")
        if not is_local(href):
            raise RemoteWriteError(
                f"{redact(href)}: this reader writes local files only. Save to a local folder, for "
                "example with normalize_and_save('folder'), and upload that."
            )
        write_atomically(local_path(href), txt.encode("utf-8"))


def _href(source: object, *, name: str = "source", wanted: str = "a URL or a path") -> str:
    href = path_of(name, source, wanted=wanted)
    if not href:
        raise ConfigurationError(f"{name} is empty; it has to be {wanted}.")
    return strip_token_parameters(href)


def _with_finite_numbers(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _with_finite_numbers(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_finite_numbers(inner) for inner in value]
    return value


def _as_sent(href: str) -> str | None:
    """Return a URL as requests sends it, quoted and with a path."""
    return requests.Request("GET", href).prepare().url if Origin.of(href) else href


def _defining_module(cls: type, name: str) -> str:
    """Return the module of the class whose method is called."""
    return next(owner.__module__ for owner in cls.__mro__ if name in vars(owner))


def reader_of(found: pystac.STACObject) -> GitLabStacIO | None:
    """Return the GitLabStacIO that an object was read through, if it was."""
    stac_io = getattr(found, "_stac_io", None)
    return stac_io if isinstance(stac_io, GitLabStacIO) else None


def default_reader() -> GitLabStacIO:
    """Return pystac's default reader if it is a GitLabStacIO, or else a new one."""
    default = pystac.StacIO.default()
    return default if isinstance(default, GitLabStacIO) else GitLabStacIO()
