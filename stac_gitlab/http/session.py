"""The one requests.Session for all requests: secrets for each of them, and for each redirect.

It also sets timeouts and keeps no cookies. :meth:`GitLabSession.fetch` and
:meth:`GitLabSession.open` retry, and raise the errors of this package.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, BinaryIO, TypeVar

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.utils import check_header_validity

from stac_gitlab import __about__
from stac_gitlab.auth import HARMLESS_HEADERS, Credentials, Origin, is_signed, request_url
from stac_gitlab.errors import (
    AuthenticationError,
    ConfigurationError,
    HTTPStatusError,
    NotFoundError,
    OfflineError,
    STACGitLabError,
)
from stac_gitlab.http.adapter import (
    DeadlineAdapter,
    StandInAdapter,
    are_connections_replaced,
    drop_inherited_connections,
)
from stac_gitlab.http.advice import advice_on_credentials, advice_on_refusal
from stac_gitlab.http.base_session import (
    SAFE_METHODS,
    BaseSession,
    drop_body,
    may_carry_secrets,
    write_origin_in_force,
)
from stac_gitlab.http.body import ACCEPT_ENCODING, beginning_of_body, whole_body
from stac_gitlab.http.deadline import Deadline, current_deadline, enforcing
from stac_gitlab.http.head import Headers
from stac_gitlab.http.rate_headers import quota_of, retry_after
from stac_gitlab.http.responses import (
    Document,
    error_for_failure,
    error_for_page,
    error_for_status,
    is_html,
)
from stac_gitlab.http.retry import RateLimiter, Retrying
from stac_gitlab.redaction import (
    Secret,
    redact,
    redact_text,
    strip_token_parameters,
)
from stac_gitlab.settings import (
    DEFAULT_TIMEOUT,
    Limits,
    RetryPolicy,
    expect,
    expect_finite,
    timeout_pair,
)

T = TypeVar("T")
POOL_SIZE = 64
IDEMPOTENT = SAFE_METHODS | {"OPTIONS", "PUT", "DELETE"}


class _UnprintedHeaders(Headers):
    """Headers whose repr has their names only: an interrupt leads through frames of urllib3."""

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


class GitLabSession(BaseSession):
    """A requests.Session that sends secrets only to their own origins. Thread-safe.

    Args:
        credentials: The secrets and their origins.
        timeout: Seconds to wait for a connection, and between two packets of a response.
        retry: When :meth:`fetch` and :meth:`open` retry.
        limits: Upper limits on what is accepted from servers.
        only: The origins that may be contacted besides those that get the token; None for all.
        offline: Which setting forbids all requests, in words; None if none does.
        transport: A session whose adapters (also those mounted or mocked later), proxies,
            certificates and public headers are used.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout: float | tuple[float, float] = DEFAULT_TIMEOUT,
        retry: RetryPolicy | None = None,
        limits: Limits | None = None,
        only: frozenset[Origin] | None = None,
        offline: str | None = None,
        transport: requests.Session | None = None,
    ) -> None:
        super().__init__(credentials)
        self.timeout = timeout_pair(timeout)
        self.retry = RetryPolicy() if retry is None else retry
        expect("retry", self.retry, RetryPolicy, wanted="a RetryPolicy")
        self.limits = Limits() if limits is None else limits
        expect("limits", self.limits, Limits, wanted="Limits")
        self.only = only
        self.offline = offline
        # When each origin was last sent what may change something, in seconds since 1970.
        self.last_change: dict[Origin | None, float] = {}
        self.max_redirects = self.limits.redirects
        # HTTP/1.1 keeps connections alive by default.
        del self.headers["Connection"]
        self.headers = Headers(self.headers.items())  # type: ignore[assignment, arg-type]  # likewise
        self.headers["User-Agent"] = f"stac-gitlab/{__about__.__version__}"
        self._limiters: dict[Origin | None, RateLimiter] = {}
        self._transport = transport
        if transport is None:
            adapter = DeadlineAdapter(pool_maxsize=POOL_SIZE)
            self.mount("https://", adapter)
            self.mount("http://", adapter)
        else:
            expect("session", transport, requests.Session, wanted="a requests.Session")
            _check_no_secrets(transport)
            self.proxies, self.verify = transport.proxies, transport.verify
            self.cert, self.trust_env = transport.cert, transport.trust_env
            usual = requests.utils.default_headers()
            for name, value in transport.headers.items():
                if name.lower() in HARMLESS_HEADERS and value != usual.get(name):
                    self.headers[name] = value

    def renew_in_child(self) -> None:
        """Give a forked child connections, limits and locks of its own."""
        super().renew_in_child()
        self._limiters = {}
        for adapter in (self._transport or self).adapters.values():
            if isinstance(adapter, HTTPAdapter):
                drop_inherited_connections(adapter)

    # -- what requests calls ----------------------------------------------------------------

    def get_adapter(self, url: str) -> BaseAdapter:
        """Return the adapter for `url`: that of the caller's session, if there is one."""
        transport = self._transport
        if transport is not None and "send" in vars(transport):
            # requests-mock replaces this method of the session that it mocks.
            return StandInAdapter(partial(transport.send, allow_redirects=False))
        adapter = transport.get_adapter(url) if transport else super().get_adapter(url)
        return StandInAdapter(adapter.send) if are_connections_replaced() else adapter

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send one request, which may be a redirect, with the secrets that belong to its URL."""
        self._check_allowed(request)
        if getattr(vars(self).get("get_adapter"), "__func__", None) is requests.Session.get_adapter:
            # requests-mock leaves this behind.
            vars(self).pop("get_adapter", None)
        left = current_deadline().time_left()
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.timeout
        if left is not None:
            connect, read = timeout_pair(kwargs["timeout"])
            kwargs["timeout"] = (min(connect, left), min(read, left))
        self._authorize(request)
        response = self._send_over_idle(request, **kwargs)
        if response is not None:
            return response
        for header in request.headers.items():
            check_header_validity(header)
        return _unread(super().send(request, **kwargs), request)

    def _send_over_idle(
        self, request: requests.PreparedRequest, *, allow_redirects: bool = True, **settings: Any
    ) -> requests.Response | None:
        """Send a request as ``requests.Session.send`` does, or return None if only that can."""
        adapter = self.get_adapter(request.url or "")
        if not isinstance(adapter, DeadlineAdapter) or any(request.hooks.values()):
            return None
        response = adapter.send_over_idle(request, **settings)
        if response is None or not response.is_redirect:
            return response
        if not allow_redirects:
            # It is one of several redirects. requests would read all of its body.
            drop_body(response)
            return response
        history = [response, *self.resolve_redirects(response, request, **settings)]
        response = history.pop()
        response.history = history
        return response

    def _check_allowed(self, request: requests.PreparedRequest) -> None:
        if self.offline is not None:
            url = redact(request.url or "")
            problem = f"{request.method} {url}: not requested, because {self.offline}."
            raise OfflineError(f"{problem} Only documents are kept in a cache.", url=url)
        if self.only is None:
            return
        origin = Origin.of(request.url or "")
        if origin not in self.only | self.credentials.origins:
            url = redact(request.url or "")
            raise ConfigurationError(
                f"{request.method} {url}: not requested, because only_hosts= does not name "
                f"{origin}. If links, assets or redirects may lead there, add it."
            )

    def _authorize(self, request: requests.PreparedRequest) -> None:
        """Set the headers that belong to the URL; those of an earlier redirect are dropped."""
        url = request.url or ""
        allowed = self.credentials.allows(url)
        headers = request.headers
        if not isinstance(headers, _UnprintedHeaders):
            headers = request.headers = _UnprintedHeaders(headers.items())
        for name, value in headers.items():
            if isinstance(value, Secret) or (not allowed and self.credentials.holds(str(value))):
                del headers[name]
        # A storage service refuses a request that has a signature and something else.
        if may_carry_secrets(request.method or "", url) and not is_signed(url):
            secrets = self.credentials.headers_for(url, self.dialect_of(url).token_header)
            for name, value in secrets.items():
                # A header that the caller set for this one request comes before those for all.
                if headers.get(name) is None:
                    headers[name] = value

    # -- documents and streams --------------------------------------------------------------

    def sha256_of(self, headers: Mapping[str, str], size: int | None) -> str | None:
        """Return the hash of a file that a response states in a header that any dialect knows.

        The URL does not decide: a redirect or a proxy may have led to another system.
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
        data: Callable[[], BinaryIO] | None = None,
        statuses: frozenset[int] = frozenset(),
        write_origin: Origin | None = None,
        idempotent: bool | None = None,
        retry: RetryPolicy | None = None,
    ) -> T:
        """Return the result of `parse` for the document at `url`.

        Args:
            url: An http(s) URL.
            parse: Takes the whole response; if it says that it is truncated, it is requested again.
            max_bytes: Upper limit for the decoded body, in bytes.
            method: The HTTP method.
            headers: More headers. None of them is a secret.
            json: The JSON body to send.
            data: Opens the file to send, for each attempt.
            statuses: As for :meth:`open`; `parse` handles them.
            write_origin: The origin that gets secrets with a method other than GET and HEAD: that
                of the URL which the caller of the package named. Never one from a link.
            idempotent: Whether the request may be retried; the default depends on the method.
            retry: Replaces the session's policy.

        Raises:
            ConfigurationError: If JSON cannot hold a number of `json`.
            HTTPStatusError: If the status is an error, after all attempts.
            NetworkError: If there is no response, after all attempts.
            InvalidResponseError: If the body is too large, truncated or not what `parse` expects.
        """
        url = strip_token_parameters(url)
        expect_finite("The body", json)
        headers = {"Accept-Encoding": ACCEPT_ENCODING, **(headers or {})}

        def attempt(url: str) -> T:
            if method not in SAFE_METHODS:
                self.last_change[Origin.of(url)] = time.time()
            context = write_origin_in_force.set(write_origin)
            try:
                with contextlib.nullcontext() if data is None else data() as body:
                    response = self._send_once(
                        method, url, headers=headers, json=json, data=body, statuses=statuses
                    )
            finally:
                write_origin_in_force.reset(context)
            with response:
                content = whole_body(response, max_bytes)
                if is_html(response, content):
                    raise self.page_error(response, content, wanted="a document")
                # Hrefs in the document are relative to this URL, so it must hold no secret.
                there = redact_text(response.url)
                return parse(Document(there, content, response.headers, response.status_code))

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
        """Return the response at `url` with its headers; the caller reads and closes it.

        Args:
            url: An http(s) URL.
            headers: More headers. None of them is a secret.
            statuses: Statuses of 300 and above that the caller handles. 304 is an error all the
                same, unless the request was conditional.
            retry: Replaces the session's policy.

        Raises:
            HTTPStatusError: If the status is another error, after all attempts.
            NetworkError: If there is no response, after all attempts.
        """
        url = strip_token_parameters(url)
        headers = {"Accept-Encoding": "identity", **(headers or {})}

        def attempt(url: str) -> requests.Response:
            return self._send_once("GET", url, headers=headers, statuses=statuses)

        return self._with_retries(attempt, method="GET", url=url, retry=retry)

    def _send_once(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        json: Any = None,
        data: BinaryIO | None = None,
        statuses: frozenset[int] = frozenset(),
    ) -> requests.Response:
        """Send once, and raise for a status that is an error and not among `statuses`."""
        harmless = self.credentials.harmless_headers()
        sent = _UnprintedHeaders()
        for name, value in (*self.headers.items(), *harmless.items(), *headers.items()):
            sent[name] = value  # type: ignore[assignment]  # none of ours is bytes
        has_body = json is not None or data is not None
        settings = self.settings_for(url)
        is_customized = self.auth or self.params or self.hooks["response"] or has_body
        if is_customized or (settings.login and self.netrc_login(method, url)):
            request = requests.Request(method, url, sent, json=json, data=data)
            prepared = self.prepare_request(request)
        else:
            prepared = _bare_request(method, url, sent)
        response = self.send(prepared, **settings.send)
        for each in (*response.history, response):
            quota = quota_of(each.headers)
            if quota is not None and each.status_code != 429:
                self.limiter_for(each.url).note_quota(quota)
        is_expected = response.status_code in statuses
        if response.status_code == 304:
            asked = response.request.headers
            is_expected &= "If-None-Match" in asked or "If-Modified-Since" in asked
        if response.status_code < 300 or is_expected:
            return response
        with response:
            response._content = beginning_of_body(response)
            raise self._status_error(response)

    def _status_error(self, response: requests.Response) -> HTTPStatusError:
        wait = retry_after(response.headers, rate_limited=response.status_code == 429)
        error = error_for_status(
            response, advice=advice_on_refusal(response, self), retry_after=wait
        )
        longest = self.retry.max_wait
        if wait is not None and wait > longest:
            note = f"That is longer than {longest:g} s; to wait, raise RetryPolicy(max_wait=)."
            error.extend(note)
        return error

    def page_error(
        self, response: requests.Response, body: bytes, *, wanted: str
    ) -> STACGitLabError:
        """Return the error for an HTML page that came with status 200 instead of `wanted`."""
        error = error_for_page(response, body, wanted=wanted)
        if isinstance(error, AuthenticationError):
            error.extend(advice_on_credentials(response, self))
        return error

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
        try:
            url = request_url(url)
        except (requests.RequestException, ValueError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise error_for_failure(error, method=method, url=url) from None
        policy = retry or self.retry
        end = policy.clock() + policy.deadline
        with enforcing(Deadline(end, clock=policy.clock, stop=current_deadline().stop)):
            missing: NotFoundError | None = None
            dialect = self.dialect_of(url)
            for candidate in dialect.request_urls(url):
                call = Retrying(
                    attempt=partial(attempt, candidate),
                    method=method,
                    url=candidate,
                    credentials=self.credentials.for_url(candidate),
                    limiter=self.limiter_for(candidate),
                    policy=policy,
                    end=end,
                    idempotent=method in IDEMPOTENT if idempotent is None else idempotent,
                )
                try:
                    return call.run()
                except NotFoundError as error:
                    missing = error
                    if not dialect.goes_on_after(error.response.text):
                        break
            if missing is None:
                raise ConfigurationError(f"{method} {redact(url)}: the URL names no file.")
            raise missing

    def limiter_for(self, url: str) -> RateLimiter:
        """Return the rate limiter for the origin of `url`, which all threads share."""
        origin = Origin.of(url)
        # setdefault is atomic: threads that find none get the same one.
        known = self._limiters.get(origin)
        return known or self._limiters.setdefault(origin, RateLimiter(self.retry))


def _check_no_secrets(transport: requests.Session) -> None:
    """Refuse a session that would send secrets, and other headers, to each server."""
    usual = {name.lower() for name in requests.utils.default_headers()} | HARMLESS_HEADERS
    names = [f"the header {name}" for name in transport.headers if name.lower() not in usual]
    names += [name for name in ("auth", "cookies", "params") if getattr(transport, name)]
    if names:
        raise ConfigurationError(
            f"session= has {' and '.join(names)} set, which requests would send to each server. "
            "Pass headers= to the GitLabStacIO instead: they are sent only where the token is, and "
            "hosts= names these servers."
        )


def _unread(response: requests.Response, request: requests.PreparedRequest) -> requests.Response:
    """Return a response whose body can be read from the connection.

    One that a test made by hand has only its content, decoded, and maybe no URL.
    """
    content = vars(response).get("_content")
    if isinstance(content, bytes):
        response.raw = io.BytesIO(content)
        response.headers.pop("Content-Encoding", None)
        response.url = response.url or request.url or ""
        response.request = vars(response).get("request") or request
    return response


def _bare_request(method: str, url: str, headers: _UnprintedHeaders) -> requests.PreparedRequest:
    """Return a request without body, cookies and auth, in a fraction of the usual time.

    `url` is in the form that :func:`request_url` returns.
    """
    request = requests.PreparedRequest()
    request.method, request.url, request.headers = method.upper(), url, headers
    return request
