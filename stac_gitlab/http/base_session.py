"""requests.Session with safe redirects and .netrc logins, without cookies, renewed by a fork."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import requests
from requests.auth import _basic_auth_str
from requests.cookies import RequestsCookieJar
from requests.structures import CaseInsensitiveDict

from stac_gitlab.auth import Credentials, Origin, is_signed
from stac_gitlab.dialects import Dialect, new_dialects
from stac_gitlab.http.body import beginning_of_body
from stac_gitlab.http.head import length_in
from stac_gitlab.redaction import (
    CREDENTIAL_HEADERS,
    Secret,
    redact_known,
    remember_secrets,
    strip_token_parameters,
)

SAFE_METHODS = frozenset({"GET", "HEAD"})
# The body of a redirect is read up to here so that its connection can be used again. For a longer
# one it is cheaper to close the connection.
_SMALL_BODY = 64 * 1024


# The origin that may get secrets with a request that can change something. A context variable,
# because requests calls send() for each redirect with arguments of its own.
write_origin_in_force: ContextVar[Origin | None] = ContextVar("stac_gitlab_write_origin")
_sessions: weakref.WeakSet[BaseSession] = weakref.WeakSet()


class BaseSession(requests.Session):
    """A session without cookies, which follows redirects and uses .netrc logins with care.

    Args:
        credentials: The secrets and their origins.
    """

    def __init__(self, credentials: Credentials) -> None:
        super().__init__()
        self.credentials = credentials
        self.cookies = _jar_without_cookies()
        self.dialects = new_dialects(credentials.paths)
        # Each request asks several times about the same URL.
        self._find_dialect = lru_cache(maxsize=256)(partial(_dialect_of, self.dialects))
        self._settings: dict[int, OriginSettings] = {}
        _sessions.add(self)

    def renew_in_child(self) -> None:
        """Give a forked child locks of its own: a thread of the parent may hold those it inherits.

        No lock may be acquired here.
        """
        self.cookies = _jar_without_cookies()
        self.credentials.renew_in_child()

    def dialect_of(self, url: str) -> Dialect:
        """Return the dialect for `url`."""
        return self._find_dialect(url)

    def settings_for(self, url: str) -> OriginSettings:
        """Return what environment and session say about the origin of `url`.

        It is looked up once: that takes longer than a small response.
        """
        key = (
            Origin.of(url),
            *(self.verify, self.cert, self.trust_env),
            *self.proxies.items(),
            *map(os.environ.get, _VARIABLES),
        )
        # Only its hash is kept, because the values may hold passwords.
        found = self._settings.get(hash(key))
        if found is None:
            send: dict[str, Any] = dict(self.merge_environment_settings(url, {}, True, None, None))
            remember_secrets(filter(None, map(_login_in, send["proxies"].values())))
            found = OriginSettings(send, _netrc_login(url) if self.trust_env else None)
            self._settings[hash(key)] = found
        return found

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request, with a .netrc login only where :meth:`netrc_login` allows it."""
        has_login = "Authorization" in CaseInsensitiveDict(request.headers or {})
        if request.auth is None and self.auth is None and not has_login:
            request.auth = self.netrc_login(request.method or "", request.url)
        # Without any, requests would look into the .netrc file itself.
        request.auth = request.auth or self.auth or (lambda prepared: prepared)
        return super().prepare_request(request)

    def netrc_login(self, method: str, url: str) -> tuple[str, str] | None:
        """Return the .netrc login for a request. The file names hosts, where tokens have origins.

        It is not used where the token is sent, nor on other ports of such a host, nor beside a
        signature in the URL. A login that holds the token belongs to the token's origins only.
        """
        login, origin = self.settings_for(url).login, Origin.of(url)
        if login is None or origin is None or is_signed(url) or not may_carry_secrets(method, url):
            return None
        origins = self.credentials.origins
        if origin in origins:
            return None if self.credentials.for_url(url).available else login
        holds_token = any(map(self.credentials.holds, login))
        return None if holds_token or origin.host in {o.host for o in origins} else login

    def resolve_redirects(
        self, resp: requests.Response, req: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> Iterator[requests.Response]:
        """Follow redirects, as requests calls it, without reading long bodies of theirs."""
        if resp.is_redirect:
            drop_body(resp)
            req.prepare_cookies({})
        yield from super().resolve_redirects(resp, req, *args, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the target of a redirect, without a token that the server may have put there."""
        target = super().get_redirect_target(resp)
        if target is None:
            return None
        target = strip_token_parameters(target)
        url = urljoin(resp.url, target)
        if url.lower().startswith("http") and Origin.of(url) is None:
            raise requests.exceptions.InvalidURL("a redirect to a URL that is not valid")
        if redact_known(target) != target and not self.credentials.allows(url):
            raise requests.exceptions.InvalidURL("a redirect that contains one of your secrets")
        return target

    def rebuild_method(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Keep a method that can change something only within its origin, and with its body.

        requests turns a redirected POST into a GET, as browsers do, and drops the body of a PUT.
        Either would lose the change. With another origin, a server could make us change something
        there.
        """
        method, status = prepared_request.method, response.status_code
        super().rebuild_method(prepared_request, response)
        if method in SAFE_METHODS or status == 303:
            return
        if Origin.of(prepared_request.url or "") != Origin.of(response.url):
            problem = "leads to another server"
        elif status not in (307, 308) and (
            prepared_request.method != method or response.request.body
        ):
            problem = "would make a GET of it or lose its body"
        else:
            return
        raise requests.exceptions.InvalidSchema(
            f"a redirect ({status}) of a {method} {problem}, so it is not followed"
        )

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Drop all credentials on the way to another origin, where a .netrc login may apply."""
        url, headers = prepared_request.url or "", prepared_request.headers
        names, login = {"cookie"}, None
        if Origin.of(url) != Origin.of(response.url):
            names |= CREDENTIAL_HEADERS
            login = self.netrc_login(prepared_request.method or "", url)
        for name in [name for name in headers if name.lower() in names]:
            del headers[name]
        if login is not None:
            prepared_request.prepare_auth(login)


def _dialect_of(dialects: Iterable[Dialect], url: str) -> Dialect:
    return next(dialect for dialect in dialects if dialect.speaks(url))


def may_carry_secrets(method: str, url: str) -> bool:
    """Return whether a request is safe, or goes to the origin that the caller named.

    Outside of the methods that retry, the caller named the URL.
    """
    origin = Origin.of(url)
    return method in SAFE_METHODS or origin == write_origin_in_force.get(origin)


def drop_body(response: requests.Response) -> None:
    """Discard the body of a redirect without reading a long one."""
    length = length_in(response.headers)
    if length is not None and length <= _SMALL_BODY:
        beginning_of_body(response)
    else:
        response.raw.close()
    response._content = b""
    response._content_consumed = True  # type: ignore[attr-defined]  # what .content looks at


# The variables that requests reads.
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_VARIABLES = (
    *_PROXIES,
    *(name.upper() for name in _PROXIES),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC", "HOME"),
)


@dataclass(frozen=True, slots=True, repr=False)
class OriginSettings:
    """What environment and session say about an origin. May hold passwords.

    Attributes:
        send: Proxies, certificates and streaming, as ``requests.Session.send`` takes them.
        login: User and password of a .netrc entry for the host, if there is one.
    """

    send: Mapping[str, Any]
    login: tuple[Secret, Secret] | None


def _netrc_login(url: str) -> tuple[Secret, Secret] | None:
    try:
        user, password = map(Secret, requests.utils.get_netrc_auth(url) or ())
    except ValueError:
        # There is none. Or the file has another encoding, which requests does not expect.
        return None
    remember_secrets([password, _basic_auth_str(user, password)])
    return user, password


def _login_in(proxy: str) -> str | None:
    """Return the Basic credential that the user info of a proxy's URL is sent as."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(proxy)
        if parts.password:
            return _basic_auth_str(unquote(parts.username or ""), unquote(parts.password))
    return None


def _jar_without_cookies() -> RequestsCookieJar:
    return RequestsCookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _renew_sessions() -> None:
    for session in list(_sessions):
        session.renew_in_child()


if hasattr(os, "register_at_fork"):  # Windows has no fork.
    os.register_at_fork(after_in_child=_renew_sessions)
