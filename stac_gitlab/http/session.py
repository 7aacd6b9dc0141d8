"""The one requests.Session through which everything goes.

It decides, for every request and every redirect anew, which secrets the server may see; gives every
request a timeout; keeps no cookies; and, in :meth:`GitLabSession.fetch` and
:meth:`GitLabSession.open`, tries again and turns failures into our errors.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from stac_gitlab import __about__
from stac_gitlab.auth import HARMLESS_HEADERS, Credentials, Origin
from stac_gitlab.dialects import Dialect, new_dialects
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    HTTPStatusError,
    InvalidResponseError,
    NotFoundError,
    PermissionDeniedError,
    STACGitLabError,
)
from stac_gitlab.forking import renew_after_fork
from stac_gitlab.http.deadline import Deadline, current_deadline, enforcing
from stac_gitlab.http.responses import Document, error_for_page, error_for_status, is_html
from stac_gitlab.http.retry import RateLimiter, Retrying, retry_after
from stac_gitlab.http.transport import DeadlineAdapter, drop_inherited_connections, length_in
from stac_gitlab.redaction import (
    CREDENTIAL_HEADERS,
    MAX_ERROR_BODY,
    redact,
    redact_known,
    strip_token_parameters,
)
from stac_gitlab.settings import Limits, RetryPolicy, expect, timeout_pair

logger = logging.getLogger(__name__)
T = TypeVar("T")
POOL_SIZE = 64
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
# What is left of a redirect's or an error's body is read up to here, so that its connection can
# serve again; beyond, closing the connection is cheaper.
_SMALL_BODY = 64 * 1024
_CHUNK = 64 * 1024
# brotli and zstd are left out: urllib3 cannot stop all versions of them at a size.
_ACCEPT_ENCODING = "gzip, deflate"
# What requests reads from the environment for every request.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_ENVIRONMENT = (
    *_PROXIES,
    *(name.upper() for name in _PROXIES),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC", "HOME"),
)


@dataclass(frozen=True)
class _OriginSettings:
    """What has to be known about an origin besides its secrets.

    Attributes:
        settings: Proxies, certificates and streaming, as ``requests.Session.send`` takes them.
        auth: User and password of a .netrc entry, if there is one.
    """

    settings: Mapping[str, Any]
    auth: tuple[str, str] | None


class _HiddenHeaders(CaseInsensitiveDict[str]):
    """Headers that show their names only.

    What interrupts a request (Ctrl-C, too little memory) leads through frames of urllib3, and
    whatever prints a traceback with its locals would print them.
    """

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"

    def copy(self) -> _HiddenHeaders:
        return _HiddenHeaders(self)


class GitLabSession(requests.Session):
    """A requests.Session that shows secrets only to the origins that may see them. Thread-safe.

    Args:
        credentials: The secrets and the origins that may see them.
        timeout: Seconds to wait for a connection, and between two packets of an answer.
        retry: When :meth:`fetch` and :meth:`open` try again.
        limits: How much of what servers send is taken.
        only: The origins that may be asked besides those that get the token; None for all.
        transport: A session of the caller's own. Its adapters (so also what is mounted or mocked
            on it later), proxies, certificates and harmless headers are used.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout: float | tuple[float, float] = (10, 60),
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        only: frozenset[Origin] | None = None,
        transport: requests.Session | None = None,
    ) -> None:
        super().__init__()
        self.credentials = credentials
        self.timeout = timeout_pair(timeout)
        self.retry = RetryPolicy() if retry is None else retry
        expect("retry", self.retry, RetryPolicy, wanted="a RetryPolicy")
        self.limits = Limits() if limits is None else limits
        expect("limits", self.limits, Limits, wanted="Limits")
        self.dialects = new_dialects()
        self.only = only
        self.max_redirects = self.limits.redirects
        self.cookies = _jar_without_cookies()
        # HTTP/1.1 keeps connections without being told to.
        del self.headers["Connection"]
        self.headers["User-Agent"] = f"stac-gitlab/{__about__.__version__}"
        self._known_origin_settings: dict[tuple[Any, ...], _OriginSettings] = {}
        self._limiters: dict[Origin | None, RateLimiter] = {}
        self._limiters_lock = threading.Lock()
        self._transport = transport
        if transport is not None:
            expect("session", transport, requests.Session, wanted="a requests.Session")
        if transport is None:
            adapter = DeadlineAdapter(pool_maxsize=POOL_SIZE)
            self.mount("https://", adapter)
            self.mount("http://", adapter)
        else:
            self.proxies, self.verify = transport.proxies, transport.verify
            self.cert, self.trust_env = transport.cert, transport.trust_env
            usual = requests.utils.default_headers()
            self.headers.update(
                {
                    name: value
                    for name, value in transport.headers.items()
                    if name.lower() in HARMLESS_HEADERS and value != usual.get(name)
                }
            )

        renew_after_fork(self)

    def renew_in_child(self) -> None:
        """Give a forked child connections, limits and locks of its own."""
        self._limiters, self._limiters_lock = {}, threading.Lock()
        self.cookies = _jar_without_cookies()
        for adapter in (self._transport or self).adapters.values():
            if isinstance(adapter, HTTPAdapter):
                drop_inherited_connections(adapter)

    # -- what requests calls ----------------------------------------------------------------

    def get_adapter(self, url: str) -> BaseAdapter:
        """Return what sends a request to `url`: the caller's adapter, if there is one."""
        if self._transport is not None:
            return self._transport.get_adapter(url)
        return super().get_adapter(url)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send one request, or one hop of it, with the secrets that its URL may see."""
        self._check_origin(request)
        left = current_deadline().time_left()
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        if left is not None:
            connect, read = timeout_pair(kwargs["timeout"])
            kwargs["timeout"] = (min(connect, left), min(read, left))
        self._authorize(request)
        response: requests.Response = super().send(request, **kwargs)
        return response

    def resolve_redirects(
        self, resp: requests.Response, req: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> Iterator[requests.Response]:
        """Follow redirects, as requests calls it, but without reading what comes with them."""
        if resp.is_redirect:
            _drop_body(resp)
            req.prepare_cookies({})
        try:
            yield from super().resolve_redirects(resp, req, *args, **kwargs)
        except (requests.RequestException, STACGitLabError):
            raise
        except ValueError as error:
            # requests takes the Location apart without a guard.
            raise requests.exceptions.InvalidURL(str(error)) from None

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where a redirect leads, without the token that the server may have put there."""
        target = super().get_redirect_target(resp)
        if target is None:
            return None
        target = strip_token_parameters(target)
        leads_away = not self.credentials.allows(urljoin(resp.url, target))
        if leads_away and redact_known(target) != target:
            raise requests.exceptions.InvalidURL("a redirect that holds a secret of ours")
        return target

    def rebuild_method(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Refuse the browsers' habit to make a GET of a POST that is redirected.

        What was to be created would not be, and a search would be one for everything.
        """
        method = prepared_request.method
        super().rebuild_method(prepared_request, response)
        if prepared_request.method != method and response.status_code != 303:
            raise requests.exceptions.InvalidSchema(
                f"a redirect ({response.status_code}) of a {method} would make a GET of it"
            )

    def _check_origin(self, request: requests.PreparedRequest) -> None:
        origin = Origin.of(request.url or "")
        if self.only is None or origin in self.only | self.credentials.origins:
            return
        url = redact(request.url or "")
        raise ConfigurationError(
            f"{request.method} {url}: not asked for, because only_hosts= does not name {origin}. "
            "If a link, an asset or a redirect may lead there, name it."
        )

    def _authorize(self, request: requests.PreparedRequest) -> None:
        url = request.url or ""
        ours = self.credentials.headers_for(url, self.dialect_of(url).token_header)
        for name in self._conflicting_headers(request, ours):
            del request.headers[name]
        request.headers = _HiddenHeaders(request.headers)
        request.headers.update(ours)

    def _conflicting_headers(
        self, request: requests.PreparedRequest, ours: Mapping[str, str]
    ) -> list[str]:
        """Name the headers that must not travel with, or in place of, our secrets.

        At an origin of ours that is every other credential (a .netrc entry, say), and a cookie in
        any case. Anywhere else it is what an earlier hop may have carried, while the caller's own
        credential for that place stays.
        """
        if ours:
            return [name for name in request.headers if name.lower() in CREDENTIAL_HEADERS]
        if self.credentials.allows(request.url or ""):
            return [name for name in request.headers if name.lower() == "cookie"]
        names = {name.lower() for name in self.credentials.secret_header_names()}
        names = (names | CREDENTIAL_HEADERS) - {"authorization"}
        return [
            name
            for name, value in request.headers.items()
            if name.lower() in names or self.credentials.hold(str(value))
        ]

    # -- documents and streams --------------------------------------------------------------

    def dialect_of(self, url: str) -> Dialect:
        """Return the dialect that is in charge of `url`."""
        return next(dialect for dialect in self.dialects if dialect.speaks(url))

    def sha256_of(self, headers: Mapping[str, str], size: int | None) -> str | None:
        """Return the hash of a file that a response states in a header that one dialect knows.

        Not the dialect of the URL: a redirect or a proxy may have led to another system.
        """
        return next(filter(None, (d.sha256(headers, size) for d in self.dialects)), None)

    def fetch(
        self,
        url: str,
        parse: Callable[[Document], T],
        *,
        max_bytes: int,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        idempotent: bool | None = None,
        retry: RetryPolicy | None = None,
    ) -> T:
        """Return what `parse` makes of the document at `url`.

        Args:
            url: An http(s) URL.
            parse: Makes something of the whole answer; a cut one is asked for again.
            max_bytes: Bytes that the answer may have, decoded.
            method: The HTTP method.
            headers: More headers. None of them is a secret.
            json: What to send as a JSON body.
            idempotent: Whether the request may be sent again; by default what its method says.
            retry: Replaces the session's policy.

        Raises:
            HTTPStatusError: If the server answers with an error, after all attempts.
            NetworkError: If no answer comes, after all attempts.
            InvalidResponseError: If the answer is too large, cut or not what `parse` expects.
        """
        url = strip_token_parameters(url)
        headers = {"Accept-Encoding": _ACCEPT_ENCODING, **(headers or {})}

        def attempt(request_url: str) -> T:
            response = self._answer(method, request_url, headers=headers, json=json)
            with response:
                body = self._whole_body(response, max_bytes)
                if is_html(response, body):
                    raise self._page_error(response, body)
                return parse(
                    Document(
                        strip_token_parameters(response.url),
                        body,
                        response.headers,
                        response.status_code,
                    )
                )

        return self._with_retries(
            attempt, method=method, url=url, idempotent=idempotent, retry=retry
        )

    def open(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        statuses: frozenset[int] = frozenset(),
        retry: RetryPolicy | None = None,
    ) -> requests.Response:
        """Return the response at `url` once its headers are there; the caller reads and closes it.

        Args:
            url: An http(s) URL.
            headers: More headers. None of them is a secret.
            statuses: Statuses of 400 and above that the caller deals with.
            retry: Replaces the session's policy.

        Raises:
            HTTPStatusError: If the server answers with any other error, after all attempts.
            NetworkError: If no answer comes, after all attempts.
        """
        url = strip_token_parameters(url)
        headers = {"Accept-Encoding": "identity", **(headers or {})}

        def attempt(request_url: str) -> requests.Response:
            return self._answer("GET", request_url, headers=headers, statuses=statuses)

        return self._with_retries(attempt, method="GET", url=url, retry=retry)

    def _answer(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        json: Any = None,
        statuses: frozenset[int] = frozenset(),
    ) -> requests.Response:
        """Send once, and raise for a status that is an error and not among `statuses`."""
        settings = self._origin_settings(url)
        headers = {**self.headers, **self.credentials.harmless_headers(), **headers}  # type: ignore[dict-item]  # none of ours is bytes
        customized = self.auth or self.params or self.hooks["response"]
        if customized or settings.auth or json is not None or "@" in url:
            request = requests.Request(method, url, headers, json=json, auth=settings.auth)
            prepared = self.prepare_request(request) if customized else request.prepare()
        else:
            prepared = _bare_request(method, url, headers)
        response = self.send(prepared, **settings.settings)
        if response.status_code < 300 or response.status_code in statuses:
            return response
        with response:
            response._content = _beginning_of_body(response)
            raise self._status_error(response)

    def _origin_settings(self, url: str) -> _OriginSettings:
        """Return what environment and session say about the origin of `url`.

        requests looks all of it up for every request, which takes longer than a small answer.
        """
        key = (
            Origin.of(url),
            *(self.verify, self.cert, self.trust_env),
            *self.proxies.items(),
            *map(os.environ.get, _ENVIRONMENT),
        )
        found = self._known_origin_settings.get(key)
        if found is None:
            settings = dict(self.merge_environment_settings(url, {}, True, None, None))
            auth = _netrc_auth(url) if self.trust_env else None
            found = self._known_origin_settings[key] = _OriginSettings(settings, auth)
        return found

    def _status_error(self, response: requests.Response) -> HTTPStatusError:
        status = response.status_code
        error = error_for_status(
            response,
            advice=self.dialect_of(response.url).advice(status),
            retry_after=retry_after(response.headers, rate_limited=status == 429),
        )
        longest = self.retry.max_wait
        if error.retry_after is not None and error.retry_after > longest:
            note = f"That is longer than {longest:g} s; to wait, raise RetryPolicy(max_wait=)."
            error.args = (f"{error.args[0]} {note}",)
        if isinstance(error, (AuthenticationError, PermissionDeniedError, NotFoundError)):
            self._explain_missing_token(error, response.url)
        return error

    def _page_error(self, response: requests.Response, body: bytes) -> STACGitLabError:
        error = error_for_page(response, body, wanted="a document")
        if isinstance(error, AuthenticationError):
            self._explain_missing_token(error, response.url)
        return error

    def _explain_missing_token(self, error: HTTPStatusError, url: str) -> None:
        if not self.credentials.available:
            note = (
                "No token was sent: there is none. Pass one to GitLabStacIO, or set "
                "STAC_GITLAB_TOKEN."
            )
        elif not self.credentials.allows(url):
            origins = ", ".join(sorted(map(str, self.credentials.origins))) or "no server yet"
            note = (
                f"The token was not sent to {Origin.of(url)}: it belongs to {origins}. To send it "
                f"there too, name that server in hosts=."
            )
        else:
            return
        error.args = (f"{error.args[0]} {note}",)

    def _whole_body(self, response: requests.Response, max_bytes: int) -> bytes:
        if (length_in(response.headers) or 0) > max_bytes:
            raise self._too_large(response, max_bytes)
        chunks: list[bytes] = []
        size = 0
        # Packet by packet: the adapter of another may know nothing of our deadline.
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            size += len(chunk)
            if size > max_bytes:
                raise self._too_large(response, max_bytes)
            current_deadline().time_left()
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self, response: requests.Response, max_bytes: int) -> InvalidResponseError:
        url = redact(response.url)
        return InvalidResponseError(
            f"{response.request.method} {url}: the document is larger than {max_bytes} bytes. If "
            "you expect that, raise max_document_bytes.",
            url=url,
        )

    # -- the one retry layer ----------------------------------------------------------------

    def _with_retries(
        self,
        attempt: Callable[[str], T],
        *,
        method: str,
        url: str,
        idempotent: bool | None = None,
        retry: RetryPolicy | None = None,
    ) -> T:
        if Origin.of(url) is None:
            redacted = redact(url)
            raise ConfigurationError(f"{method} {redacted}: not a URL that can be asked for.")
        policy = retry or self.retry
        if idempotent is None:
            idempotent = method in IDEMPOTENT
        end = policy.clock() + policy.deadline
        with enforcing(Deadline(end, clock=policy.clock, stop=current_deadline().stop)):
            missing: NotFoundError | None = None
            dialect = self.dialect_of(url)
            for request_url in dialect.request_urls(url):
                call = Retrying(
                    partial(attempt, request_url),
                    method=method,
                    url=request_url,
                    credentials=self.credentials,
                    gate=self.limiter_for(request_url),
                    policy=policy,
                    end=end,
                    idempotent=idempotent,
                )
                try:
                    return call.run()
                except NotFoundError as error:
                    missing = error
                    if not dialect.goes_on_after(error.response.text):
                        break
            if missing is None:
                redacted = redact(url)
                raise ConfigurationError(f"{method} {redacted}: the URL names no file.")
            raise missing

    def limiter_for(self, url: str) -> RateLimiter:
        """Return what all threads know about how much the origin of `url` bears."""
        origin = Origin.of(url)
        gate = self._limiters.get(origin)
        if gate is None:
            with self._limiters_lock:
                gate = self._limiters.setdefault(origin, RateLimiter(self.retry))
        return gate


def _bare_request(method: str, url: str, headers: Mapping[str, str]) -> requests.PreparedRequest:
    """Prepare a request that has neither body nor cookies nor auth, in a third of the time."""
    request = requests.PreparedRequest()
    request.prepare_method(method)
    request.prepare_url(url, None)
    request.prepare_headers(headers)
    request.prepare_hooks(requests.hooks.default_hooks())
    return request


def _jar_without_cookies() -> RequestsCookieJar:
    return RequestsCookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _netrc_auth(url: str) -> tuple[str, str] | None:
    try:
        return requests.utils.get_netrc_auth(url)
    except ValueError:
        # requests passes over a broken file, but not over one in another encoding.
        return None


def _beginning_of_body(response: requests.Response) -> bytes:
    """Read as much of an error's body as is worth showing; a broken one counts as empty."""
    try:
        body: bytes = response.raw.read(MAX_ERROR_BODY, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError):
        return b""
    if len(body) >= MAX_ERROR_BODY:
        response.raw.close()
    return body or b""


def _drop_body(response: requests.Response) -> None:
    """Get rid of the body of a redirect without reading a long one."""
    length = length_in(response.headers)
    if length is not None and length <= _SMALL_BODY:
        _beginning_of_body(response)
    else:
        response.raw.close()
    response._content = b""
    response._content_consumed = True  # type: ignore[attr-defined]  # what .content looks at
