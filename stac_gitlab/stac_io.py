"""GitLabStacIO: the pystac.StacIO that reads authenticated STAC.

It is the seam between pystac and the rest of the package: hrefs come in, documents and pystac
objects go out. What happens on the way is the session's work, and what pystac's own classes cannot
do with an API is added by ``pystac_hooks``.
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import pystac
import requests
from pystac.utils import safe_urlparse

from stac_gitlab.adapter import current_watch
from stac_gitlab.arguments import dict_of, expect, path_of, whole_number
from stac_gitlab.auth import Credentials, TokenSource, hidden, parse_hosts, scrub
from stac_gitlab.confinement import (
    check_is_followable,
    confine,
    confined_schema,
    is_local_path,
)
from stac_gitlab.documents import (
    check_stac,
    lists_plain_items,
    parse_json,
    text_without_tokens,
    without_tokens,
)
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    HTTPStatusError,
    InvalidResponseError,
    NotFoundError,
    NotSTACError,
    RateLimitError,
    RemoteWriteError,
    ServerError,
    STACGitLabError,
    UnreadableItemWarning,
)
from stac_gitlab.items import OwnDocument
from stac_gitlab.limits import Limits
from stac_gitlab.paging import Page, PageRequest, Pages, with_limit
from stac_gitlab.part import part_beside
from stac_gitlab.retry import RetryPolicy
from stac_gitlab.session import Document, GitLabSession
from stac_gitlab.sharinghub import strip_token

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GitLabStacIO"]

HREF = str | os.PathLike[str]
T = TypeVar("T")

_ON_BAD_ITEM = ("warn", "raise")


class GitLabStacIO(pystac.StacIO):
    """Reads STAC behind a GitLab token, and writes it to local files.

    Calling an instance returns the instance, so that it can be handed to
    ``pystac.StacIO.set_default``, which wants a callable. One instance holds one pool of
    connections; share it between threads, and close it (or use it in a ``with`` statement) when
    you are done.

    Args:
        token: A token, a function that returns one (asked again after a 401), or None for the
            first of ``STAC_GITLAB_TOKEN``, ``GITLAB_TOKEN`` and ``CI_JOB_TOKEN`` that the
            environment holds. Without any of them requests are anonymous.
        base_url: URL of the server that gets the token; ``STAC_GITLAB_URL`` where it is None.
            Without `base_url` and `hosts`, that is the first server read.
        hosts: More servers that get the token, as URLs or bare host names.
        only_hosts: The servers that may be asked at all, besides those that get the token; None for
            whatever links, assets and redirects lead to.
        header: ``"auto"`` for the header that the server behind the URL expects, a header name
            (``"x-api-key"``), or a name and a scheme (``"Authorization: Bearer"``).
        headers: More headers. Those that may hold a secret go where the token goes.
        timeout: Seconds to wait for a connection, and between two packets of an answer.
        retry: When requests are tried again, and how long they may take.
        limits: How much of what servers send is taken, besides `max_document_bytes`.
        session: A ``requests.Session`` whose adapters, proxies and certificates to use.
        page_size: How many items to ask for at a time.
        on_bad_item: ``"warn"`` to leave an item that cannot be read out of a listing, with an
            :class:`~stac_gitlab.UnreadableItemWarning`, or ``"raise"``.
        max_document_bytes: Bytes that one document may have, decompressed.
        allow_pickle_token: Whether a token given as a string travels in pickles of this object.

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
        timeout: float | tuple[float, float] = (10, 60),
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        session: requests.Session | None = None,
        page_size: int = 100,
        on_bad_item: str = "warn",
        max_document_bytes: int = 64 * 2**20,
        allow_pickle_token: bool = False,
    ) -> None:
        try:
            known = hidden(token)
        finally:
            del token
        if on_bad_item not in _ON_BAD_ITEM:
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
            transport=session,
        )
        self.page_size = page_size
        self.on_bad_item = on_bad_item
        self.max_document_bytes = max_document_bytes
        self.allow_pickle_token = allow_pickle_token
        super().__init__(dict_of("headers", headers or {}))

    def __call__(self) -> GitLabStacIO:
        return self

    def __repr__(self) -> str:
        if "credentials" not in self.__dict__:
            return "<GitLabStacIO in the making>"
        origins = ", ".join(sorted(map(str, self.credentials.origins))) or "the first server read"
        token = "a token" if self.credentials.available else "no token"
        return f"<GitLabStacIO with {token} for {origins}>"

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
            "timeout": self.session.timeout,
            "retry": self.session.retry,
            "limits": self.session.limits,
            "only": self.session.only,
            "page_size": self.page_size,
            "on_bad_item": self.on_bad_item,
            "max_document_bytes": self.max_document_bytes,
            "allow_pickle_token": self.allow_pickle_token,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.credentials = Credentials.from_state(state.pop("credentials"))
        self.session = GitLabSession(
            self.credentials,
            timeout=state.pop("timeout"),
            retry=state.pop("retry"),
            limits=state.pop("limits"),
            only=state.pop("only"),
        )
        self.__dict__.update(state)

    # -- reading ----------------------------------------------------------------------------

    def read_text(self, source: HREF, *_: Any, **__: Any) -> str:
        """Return the text at a URL, a ``file://`` URL or a local path, without tokens.

        Args:
            source: The href. Of a ``pystac.Link``, its method, headers and body count too.

        Raises:
            STACGitLabError: If a URL cannot be read.
            OSError: If a local file cannot be read.
        """
        request = _request_for(source)
        if is_local(request.href):
            text = _read_local(request.href).decode("utf-8")
        else:
            self.credentials.bind(request.href)
            shown = scrub(request.href, self.credentials.secrets())
            text = confined_schema(self._fetch(request, text_of), url=shown)
        return text_without_tokens(text, self.credentials.secrets())

    def read_json(self, source: HREF, *_: Any, **__: Any) -> dict[str, Any]:
        """Return the JSON object at a URL, a ``file://`` URL or a local path.

        Tokens that a server wrote into its answer are gone from it, and what claims to be STAC has
        been checked for the fields that pystac needs.

        Args:
            source: As in :meth:`read_text`.

        Raises:
            STACGitLabError: If a URL cannot be read, or what it answers cannot be used.
            InvalidResponseError: If a local file does not hold a JSON object.
            OSError: If a local file cannot be read.
        """
        request = _request_for(source)
        if is_local(request.href):
            body = _read_local(request.href)
            secrets, limits = self.credentials.secrets(), self.session.limits
            document = parse_json(body, url=request.href, secrets=secrets, limits=limits)
            return without_tokens(document, body, secrets, url=request.href)
        self.credentials.bind(request.href)
        return dict(self.read_page(request).document)

    def read_page(self, request: PageRequest, *, retry: RetryPolicy | None = None) -> Page:
        """Return one remote document, and where it came from after all redirects."""

        def page(answer: Document) -> Page:
            secrets = self.credentials.secrets()
            shown = scrub(answer.url, secrets)
            limits = self.session.limits
            document = parse_json(answer.body, url=shown, secrets=secrets, limits=limits)
            document = without_tokens(document, answer.body, secrets, url=shown)
            self.session.dialect_of(request.href).correct(document, request.href)
            there = _web_url(request.href, answer.url)
            is_plain = lists_plain_items(document)
            confine(document, url=there, listed=not is_plain)
            check_stac(document, url=shown)
            return Page(there, document, etag_of(answer.headers, secrets), is_plain)

        return self._fetch(request, page, retry=retry)

    def read_stac_object(
        self, source: HREF, root: pystac.Catalog | None = None, *_: Any, **__: Any
    ) -> pystac.STACObject:
        """Return the Catalog, Collection or Item at `source`, which keeps this reader.

        Raises:
            NotSTACError: If it is none of them.
            STACGitLabError: As for :meth:`read_json`.
        """
        href = _href(source)
        document = self.read_json(source)
        if document.get("type") == "Feature":
            document = OwnDocument(document)
        with refusals_explained(href, document):
            found = self.stac_object_from_dict(document, href, root, preserve_dict=False)
        if root is None:
            become_own_root(found, href)
        return found

    def _fetch(
        self,
        request: PageRequest,
        parse: Callable[[Document], T],
        *,
        retry: RetryPolicy | None = None,
    ) -> T:
        check_is_followable(request.href)
        return self.session.fetch(
            request.href,
            parse,
            max_bytes=self.max_document_bytes,
            method=request.method,
            headers=request.headers,
            json=request.body,
            # A POST of the STAC API asks for a page: sending it twice changes nothing.
            idempotent=True,
            retry=retry,
        )

    # -- listing ----------------------------------------------------------------------------

    def list_items(self, items_url: str) -> Iterator[dict[str, Any]]:
        """Yield the items of an items endpoint, page by page, as dictionaries.

        Args:
            items_url: Where the ``items`` link of a collection points.

        Raises:
            STACGitLabError: If a page cannot be read.
            InvalidResponseError: If the server pages in circles.
        """
        yield from self.item_pages(items_url).listed(self.is_readable)

    def item_pages(self, items_url: str) -> Pages:
        """Return the pages of an items endpoint, none of them read yet.

        What they list has yet to pass :meth:`is_readable`, unless they are plain.
        """
        first = PageRequest(with_limit(items_url, self.page_size))
        return Pages(self._read_items_page, first, limits=self.session.limits)

    def is_readable(
        self, feature: Any, url: str, *, check: Callable[..., None] | None = None
    ) -> bool:
        """Tell whether what a page lists can be read; if not, warn or raise as `on_bad_item` says.

        Args:
            feature: What is listed.
            url: The page, as it is to be shown.
            check: What to check in place of the shape of a whole item.
        """
        if isinstance(feature, _Unreadable):
            self.report_bad_item(feature.error, feature.item_id)
            return False
        try:
            (check or check_feature)(feature, url=url)
        except InvalidResponseError as error:
            self.report_bad_item(error, _id_of(feature))
            return False
        return True

    def list_collections(self, collections_url: str) -> Iterator[dict[str, Any]]:
        """Yield the collections that ``/collections`` lists, page by page, as dictionaries.

        Raises:
            STACGitLabError: If a page cannot be read.
            InvalidResponseError: If the server pages in circles, or a collection is broken.
        """
        first = PageRequest(collections_url)
        limits = self.session.limits
        pages = Pages(self.read_page, first, field_name="collections", limits=limits)
        yield from pages.listed(_is_collection)

    def read_item_of(self, items_url: str, item_id: str) -> tuple[str, dict[str, Any]] | None:
        """Return one item of an items endpoint with its URL, or None if it is not there.

        Raises:
            STACGitLabError: If the server does not say whether it is there.
        """
        try:
            url = self.session.dialect_of(items_url).item_url(items_url, item_id)
        except UnicodeEncodeError:
            # Half a character: it can be asked for nowhere, so it is nowhere.
            return None
        try:
            document = self.read_json(url)
        except NotFoundError:
            return None
        except HTTPStatusError as error:
            if error.status_code == 400:
                # SharingHub's answer for a project of another collection.
                return None
            raise
        return url, document

    def report_bad_item(self, error: Exception, item_id: object) -> None:
        """Warn about, or raise for, an item of a listing that cannot be read."""
        if self.on_bad_item == "raise":
            raise error
        name = "an item without an id" if item_id is None else f"item {item_id!r}"
        warnings.warn(f"Left out {name}: {error}", UnreadableItemWarning, stacklevel=2)

    def _read_items_page(self, request: PageRequest) -> Page:
        by_reference = self.session.dialect_of(request.href).reference_page_url(request.href)
        if by_reference is None:
            return self.read_page(request)
        try:
            return self._read_page_or_500(request)
        except ServerError as error:
            if error.status_code != 500:
                raise
            refused = error
        try:
            references = self.read_page(PageRequest(by_reference))
        except HTTPStatusError as error:
            if isinstance(error, (AuthenticationError, RateLimitError)):
                raise
            # No such page either: another server, or one that is down.
            raise refused from None
        return self._resolved(references, request.href)

    def _read_page_or_500(self, request: PageRequest) -> Page:
        """Read a page where a 500 may be for good, because of one bad item.

        It gets one more chance, not the four that the policy gives to what passes.
        """
        if self.session.retry.max_attempts > 1 and 500 in self.session.retry.statuses:
            try:
                return self._read_page_once(request)
            except ServerError as error:
                if error.status_code != 500:
                    raise
        return self._read_page_once(request)

    def _read_page_once(self, request: PageRequest) -> Page:
        """Read a page, and do not try again after a 500."""
        policy = self.session.retry
        return self.read_page(request, retry=policy.replace(statuses=policy.statuses - {500}))

    def _resolved(self, references: Page, page_url: str) -> Page:
        """Return a page of references with its items read one by one."""
        dialect = self.session.dialect_of(page_url)
        items_url = urlunsplit(urlsplit(page_url)._replace(query="", fragment=""))
        ids = [_id_of(reference) for reference in references.features()]
        features: list[Any] = list(references.features())
        broken: dict[int, str] = {}
        for place, item_id in enumerate(ids):
            if not isinstance(item_id, str) or not item_id:
                continue
            url = dialect.item_url(items_url, item_id)
            features[place] = self._item_or_error(url, item_id, self._read_page_or_500)
            if isinstance(features[place], _Unreadable):
                broken[place] = item_id
        policy = self.session.retry
        for attempt in range(3, policy.max_attempts + 1):
            if not broken:
                break
            # It may be the server that is down for a moment, and not the items that are broken.
            current_watch().sleep(policy.backoff(attempt - 1), policy.sleep)
            for place, item_id in list(broken.items()):
                url = dialect.item_url(items_url, item_id)
                features[place] = self._item_or_error(url, item_id, self._read_page_once)
                if not isinstance(features[place], _Unreadable):
                    del broken[place]
        document = {**references.document, "features": features}
        following = references.next_link()
        if following is not None and isinstance(following.get("href"), str):
            full = {**following, "href": dialect.full_page_url(following["href"])}
            document["links"] = [full]
        return Page(page_url, document)

    def _item_or_error(
        self, url: str, item_id: str, read: Callable[[PageRequest], Page]
    ) -> Mapping[str, Any] | _Unreadable:
        try:
            return read(PageRequest(url)).document
        except (ServerError, NotFoundError, InvalidResponseError) as error:
            if isinstance(error, ServerError) and error.status_code != 500:
                raise
            return _Unreadable(item_id, error)

    # -- writing ----------------------------------------------------------------------------

    def json_dumps(self, json_dict: dict[str, Any], *args: Any, **kwargs: Any) -> str:
        """Return a document as JSON, with all the numbers that JSON can hold."""
        try:
            return super().json_dumps(json_dict, *args, **kwargs)
        except TypeError:
            # Where orjson is installed pystac uses it, and it knows no integers beyond 64 bits.
            return json.dumps(json_dict, indent=2)

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
                f"{scrub(href)}: this reader writes local files only. Save to a local folder, for "
                "example with normalize_and_save('folder'), and upload that."
            )
        _write_whole(_local_path(href), txt.encode("utf-8"))


@dataclass(frozen=True)
class _Unreadable:
    """Stands on a page in the place of an item that could not be read."""

    item_id: str
    error: Exception


@contextlib.contextmanager
def refusals_explained(href: str, document: Mapping[str, Any]) -> Iterator[None]:
    """Turn what pystac raises about a remote document into an error of ours."""
    try:
        yield
    except STACGitLabError:
        raise
    except Exception as error:
        # Whatever its migrations and extensions stumble over, a bare Exception included.
        if is_local(href):
            raise
        shown = scrub(strip_token(href))
        if isinstance(error, pystac.STACTypeError):
            raise NotSTACError(
                f"{shown}: {_kind_of(document)} came, which is not what was asked for ({error}) "
                "Check the URL, or read it with pystac.read_file.",
                url=shown,
            ) from error
        raise InvalidResponseError(
            f"{shown}: pystac cannot make an object of it "
            f"({type(error).__name__}: {error}). Whoever maintains the catalog has to mend it.",
            url=shown,
        ) from error


def keep_reader(found: pystac.STACObject, stac_io: GitLabStacIO) -> None:
    """Let an object read its relations the way it was read itself; pystac does so for catalogs."""
    found._stac_io = stac_io  # type: ignore[attr-defined]  # declared by its subclasses only


def become_own_root(found: pystac.STACObject, href: str) -> None:
    """Make a landing page its own root, though it calls itself by a name with a slash more."""
    if not isinstance(found, pystac.Catalog):
        return
    link = found.get_root_link()
    if link is None or link.is_resolved():
        return
    if (link.get_absolute_href() or "").rstrip("/") == href.rstrip("/"):
        found.set_root(found)


def check_feature(feature: Any, *, url: str) -> None:
    """Check that what a page lists is an item that pystac can read.

    Raises:
        InvalidResponseError: If it is not; the message names the field.
    """
    if not isinstance(feature, dict):
        raise InvalidResponseError(f"{url}: the page lists something that is no object.", url=url)
    if feature.get("type") != "Feature":
        raise InvalidResponseError(
            f"{url}: the page lists {_kind_of(feature)}, not an item.", url=url
        )
    # Some servers leave the version to the page.
    check_stac(
        feature if "stac_version" in feature else {"stac_version": "1.0.0", **feature}, url=url
    )


def _is_collection(collection: Any, url: str) -> bool:
    """Check that what a page lists is a collection that pystac can read. None is left out."""
    if not isinstance(collection, dict):
        raise InvalidResponseError(
            f"{url}: collections lists something that is no object.", url=url
        )
    check_stac({"stac_version": "1.0.0", **collection}, url=url)
    return True


def _id_of(feature: Any) -> Any:
    return feature.get("id") if isinstance(feature, Mapping) else None


def _kind_of(document: Mapping[str, Any]) -> str:
    kind, name = document.get("type"), document.get("id")
    if not isinstance(kind, str):
        return "JSON that is not STAC"
    return f"a {kind}" + (f" (id {name!r})" if isinstance(name, str) else "")


def _href(source: object, *, name: str = "source", wanted: str = "a URL or a path") -> str:
    href = path_of(name, source, wanted=wanted)
    if not href:
        raise ConfigurationError(f"{name} is empty; it has to be {wanted}.")
    return strip_token(href)


def _request_for(source: HREF) -> PageRequest:
    href = _href(source)
    if not isinstance(source, pystac.Link):
        return PageRequest(href)
    link = {**source.extra_fields, "href": href}
    return PageRequest(href).followed_by({**link, "merge": False}, page_url=href)


def etag_of(headers: Mapping[str, str], secrets: Iterable[str]) -> str | None:
    """Return the entity tag among the headers of an answer, unless a secret was put into it."""
    etag = headers.get("ETag")
    return None if etag is None or scrub(etag, secrets) != etag else etag


def _web_url(asked: str, answered: str) -> str:
    """Return the URL that relative links of an answer are relative to.

    Where a web URL was asked for at another address (a file of a GitLab repository), that is the
    web URL; elsewhere it is where redirects have led.
    """
    return asked if "/-/" in asked else answered


def text_of(answer: Document) -> str:
    """Return the text of an answer.

    Raises:
        InvalidResponseError: If it is not UTF-8.
    """
    try:
        return answer.body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        shown = scrub(answer.url)
        raise InvalidResponseError(
            f"{shown}: not UTF-8 text (at byte {error.start}).", url=shown
        ) from None


def is_local(href: str) -> bool:
    """Tell whether `href` is a local path or a ``file://`` URL."""
    try:
        return is_local_path(href)
    except ValueError as error:
        raise ConfigurationError(f"{scrub(href)}: not a URL ({error}).") from None


def _local_path(href: str) -> str:
    """Return the path of a local href, as pystac takes it, unless a # or ? was meant literally.

    pystac cuts a path there, and follows links cut like that. So must what it is to find again;
    only what stands in a folder, or is a file, with such a name was certainly meant.
    """
    parts = safe_urlparse(href)
    if parts.scheme == "file" or parts.path == href:
        return parts.path
    meant = os.path.exists(href) or os.path.isdir(os.path.dirname(href))
    return href if meant else parts.path


def _read_local(href: str) -> bytes:
    path = _local_path(href)
    try:
        with open(path, "rb") as file:
            return file.read()
    except ValueError as error:
        raise ConfigurationError(f"{path!a}: no file can have such a name ({error}).") from None


def _write_whole(name: str, content: bytes) -> None:
    # A link is written through, not replaced: its owner put it there on purpose.
    target = os.path.realpath(name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with part_beside(target) as part:
        part.write(content)
        part.finish()
