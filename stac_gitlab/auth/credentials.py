"""The secrets of a reader, and the origins that they are sent to.

:class:`Credentials` holds the token, the headers that the user set, and the origins that get them.
The dialect of a URL knows the header for the token.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from requests.auth import _basic_auth_str

from stac_gitlab.auth.origins import Origin, parse_host, parse_hosts, paths_of_servers
from stac_gitlab.auth.token_store import stored_servers, stored_token
from stac_gitlab.auth.tokens import (
    JOB_TOKEN_VARIABLE,
    Token,
    TokenSource,
    hide_token,
    hide_tokens,
)
from stac_gitlab.errors import (
    ConfigurationError,
    ImplicitTokenWarning,
    InsecureTransportWarning,
    STACGitLabError,
)
from stac_gitlab.redaction import (
    REDACTED,
    KnownSecrets,
    Secret,
    canonical_name,
    is_credential,
    redact,
    redacting_logger,
    remember_secrets,
)
from stac_gitlab.settings import expect, expect_text

logger = redacting_logger(__name__)
TOKEN_VARIABLES = ("STAC_GITLAB_TOKEN", "GITLAB_TOKEN", JOB_TOKEN_VARIABLE)
"""Environment variables that may hold a token, in the order in which they are tried."""

URL_VARIABLE = "STAC_GITLAB_URL"
# The server whose CI job this is. The job token belongs to it.
JOB_SERVER_VARIABLE = "CI_SERVER_URL"
# A custom header is sent where the token is sent, unless it is one of these.
HARMLESS_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "accept-language", "cache-control"),
        *("content-type", "pragma", "user-agent"),
    }
)


class Credentials:
    """The token, the custom headers, and the origins that get them. Thread-safe.

    Args:
        token: See :data:`TokenSource`.
        base_url: URL of the server that gets the token; ``STAC_GITLAB_URL`` where it is None.
        hosts: More servers that get it, as URLs or bare host names. Or a mapping from these to a
            header, to a token source of their own, to a tuple of both, or to None.
        header: ``"auto"``, a header name (``"x-api-key"``), or a header name and a scheme
            (``"Authorization: Bearer"``).

    Raises:
        ConfigurationError: If one of them makes no sense.
    """

    def __init__(
        self,
        token: TokenSource | Token = None,
        *,
        base_url: str | None = None,
        hosts: Iterable[str] | None = None,
        header: str = "auto",
    ) -> None:
        # First what the repr needs: a traceback with locals shows it if an argument is wrong.
        self._fixed: Token | None = None
        self._ask: Callable[[], str | None] | None = None
        self._named: frozenset[Origin] = frozenset()
        self._lock = threading.Lock()
        self._asked: Token | None = None
        self._left_behind = False
        self._uses_environment = True
        self.headers: dict[str, str] = {}
        self._header_of: dict[Origin, tuple[str, str] | None] = {}
        self._others: dict[Origin, Credentials] = {}
        self._stored: frozenset[Origin] = frozenset()
        self._bound: Origin | None = None
        self._exposed_to: set[Origin] = set()
        self._seen = KnownSecrets()
        try:
            known = hide_token(token)
        finally:
            del token
        if isinstance(known, Token):
            self._fixed = known
        else:
            self._ask = known
        self._header = _parse_header(header)
        hosts = hide_tokens(hosts)
        self._named = parse_hosts("hosts", hosts)
        servers = [hosts] if isinstance(hosts, str) else [*(hosts or ())]
        base_url = base_url or os.environ.get(URL_VARIABLE) or None
        if base_url:
            self._named |= parse_host(expect_text("base_url", base_url, wanted="a URL"))
            servers.append(base_url)
        job_server = os.environ.get(JOB_SERVER_VARIABLE, "")
        servers += [job_server] if Origin.of(job_server) else []
        self.paths = paths_of_servers(reversed(servers))
        for host, own in hosts.items() if isinstance(hosts, Mapping) else ():
            if isinstance(own, tuple):
                self._others |= dict.fromkeys(parse_host(host), _other(host, *own))
            elif own is not None:
                self._header_of |= dict.fromkeys(parse_host(host), _parse_header(own))
        self._named -= self._others.keys()
        if known is None:
            self._use_stored_tokens()

    def _use_stored_tokens(self) -> None:
        """Use stored tokens for servers that get none from the arguments or the environment."""
        taken = self._others.keys() | (self._named if self._token_variable() else set())
        for server in stored_servers():
            [origin] = parse_host(server)
            if origin not in taken:
                self._others[origin] = _other(server, "auto", partial(stored_token, server))
                self._stored |= {origin}
        self._named -= self._stored

    def renew_in_child(self) -> None:
        """Give a forked child a lock of its own."""
        for credentials in (self, *self._others.values()):
            credentials._lock = threading.Lock()

    # -- which origins ----------------------------------------------------------------------

    @property
    def origins(self) -> frozenset[Origin]:
        """The origins that get the token, or one of their own."""
        return self._named_origins() | self._stored

    def _named_origins(self) -> frozenset[Origin]:
        named = self._named | (self._others.keys() - self._stored)
        if self._token_variable() == JOB_TOKEN_VARIABLE:
            job_server = Origin.of(os.environ.get(JOB_SERVER_VARIABLE, ""))
            named |= {job_server} if job_server else set()
        if named:
            return named
        return frozenset() if self._bound is None else frozenset({self._bound})

    def allows(self, url: str) -> bool:
        """Return whether the origin of `url` gets the token."""
        return Origin.of(url) in self.origins

    def for_url(self, url: str) -> Credentials:
        """Return the credentials for `url`: its own ones, if ``hosts=`` has some."""
        return self._others.get(Origin.of(url), self) if self._others else self  # type: ignore[arg-type]  # None is no key

    def bind(self, url: str) -> None:
        """Bind the token to the origin of `url`, if no origin was named and none is bound yet."""
        if self.headers:
            self._remember(self._scoped_headers().values())
        origin = Origin.of(url)
        if origin is None or origin.is_public_metadata:
            return
        if origin in self._stored or self._named_origins():
            return
        if not (self.available or self._left_behind or self._scoped_headers()):
            return
        variable = self._token_variable()
        with self._lock:
            if self._bound is not None:
                return
            if variable is not None:
                warnings.warn(
                    f"The token in {variable} is sent to {origin}, because that is the first "
                    f"server that is read. Name its server: pass base_url=, or set {URL_VARIABLE}.",
                    ImplicitTokenWarning,
                    stacklevel=3,
                )
            self._bound = origin
        advice = "Pass base_url= or hosts= to name its servers yourself."
        logger.info("The token is bound to %s, the first server read. %s", origin, advice)

    # -- which secret -----------------------------------------------------------------------

    @property
    def is_withheld(self) -> bool:
        """Whether the function that was passed as token= returned None."""
        return self._ask is not None and self.token() is None

    @property
    def available(self) -> bool:
        """Whether there is any secret to send."""
        try:
            return bool(self._fixed or self._ask or self._own_credentials() or self._environment())
        except ConfigurationError:
            # There is one, but it cannot be sent.
            return True

    def token(self) -> Token | None:
        """Return the token to use now, or None to stay anonymous."""
        token = self._token()
        if token is not None:
            self._remember([token.value])
        return token

    def renew(self, refused: Token | None) -> bool:
        """Call the token function again after a 401; return whether it has another token now."""
        if self._ask is None or refused is None:
            return False
        with self._lock:
            if self._asked == refused:
                self._asked = None
        return self.token() not in (None, refused)

    def headers_for(
        self, url: str, token_header: Callable[[Token], tuple[str, str]]
    ) -> dict[str, Secret]:
        """Return the secret headers for `url`: none for an origin that is not allowed.

        Args:
            url: The URL of a request.
            token_header: See :meth:`Dialect.token_header`.
        """
        if not self.allows(url):
            return {}
        if self.for_url(url) is not self:
            return self.for_url(url).headers_for(url, token_header)
        headers = self._scoped_headers()
        token = self.token()
        if token is not None:
            if token == self._token_in_headers():
                headers = {n: v for n, v in headers.items() if n.lower() != "x-gitlab-token"}
            own = self._header_of.get(Origin.of(url)) if self._header_of else None  # type: ignore[arg-type]  # None is no key
            name, scheme = own or self._header or token_header(token)
            if name.lower() not in {n.lower() for n in headers}:
                headers[name] = _header_value(scheme, token)
        if headers:
            self._remember(headers.values())
            self._warn_if_exposed(url)
        return headers

    def harmless_headers(self) -> dict[str, str]:
        """Return the headers set by the user that are sent to every server."""
        harmless = [name for name in self.headers if name.lower() in HARMLESS_HEADERS]
        return {name: self._checked_header(name) for name in harmless}

    def without_secret_names(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers that a server chose without those whose place is taken by a secret."""
        chosen = [self._header, *self._header_of.values()]
        names = {header[0] for header in chosen if header} | self._scoped_headers().keys()
        names = {canonical_name(name) for name in names}
        return {n: v for n, v in headers.items() if canonical_name(n) not in names}

    def holds(self, text: str) -> bool:
        """Return whether `text` contains a secret that was used so far."""
        everyone = self, *self._others.values()
        return any(secret in text for each in everyone for secret in each._seen)

    def _remember(self, secrets: Iterable[Secret]) -> None:
        for secret in secrets:
            self._seen.add(secret)
        remember_secrets(secrets)

    def _token(self) -> Token | None:
        if self._fixed is not None:
            return self._fixed
        if self._ask is not None:
            with self._lock:
                if self._asked is None:
                    self._asked = self._call(self._ask)
                return self._asked
        in_headers = self._token_in_headers()
        if in_headers is not None:
            return in_headers
        if self._own_credentials():
            return None
        token = self._environment()
        if token is None and self._left_behind:
            raise ConfigurationError(
                "This reader was pickled without its token, and the process that uses it now has "
                f"none in its environment. Set {TOKEN_VARIABLES[0]} there, pass a function as "
                "token=, or allow the token to travel with allow_pickle_token=True."
            )
        return token

    def _call(self, ask: Callable[[], str | None]) -> Token | None:
        """Return the token that the caller's function returns."""
        cause = None
        try:
            value = ask()
        except STACGitLabError:
            raise
        except Exception as error:  # noqa: BLE001  # of the caller's, whatever it is
            problem = f"failed ({type(error).__name__}: {redact(str(error))})"
            # An exception that names a secret is not shown.
            cause = None if REDACTED in redact(str(error)) else error
        else:
            if value is None:
                return None
            if not isinstance(value, str) or value.strip():
                return Token(value)
            problem = "returned an empty text"
        raise ConfigurationError(
            f"The function that was passed as token= {problem}. Without a token, nothing was "
            "requested."
        ) from cause

    def _token_in_headers(self) -> Token | None:
        """Return the token that a script set as ``io.headers = {"X-Gitlab-Token": …}``."""
        name = next((name for name in self.headers if name.lower() == "x-gitlab-token"), None)
        return None if name is None else Token(self.headers[name])

    def _environment(self) -> Token | None:
        name = self._token_variable()
        return None if name is None else Token(os.environ[name])

    def _token_variable(self) -> str | None:
        """Return the environment variable that the token is taken from, or None."""
        if self._fixed is not None or self._ask is not None or not self._uses_environment:
            return None
        if any(is_credential(name, str(value)) for name, value in self.headers.items()):
            return None
        return next((name for name in TOKEN_VARIABLES if os.environ.get(name, "").strip()), None)

    def _own_credentials(self) -> dict[str, Secret]:
        """Return the user's headers that stand in for a token."""
        return {n: v for n, v in self._scoped_headers().items() if is_credential(n, v)}

    def _scoped_headers(self) -> dict[str, Secret]:
        """Return the user's headers that go where the token goes, and nowhere else."""
        scoped = [name for name in self.headers if name.lower() not in HARMLESS_HEADERS]
        return {name: Secret(self._checked_header(name)) for name in scoped}

    def _checked_header(self, name: str) -> str:
        """Return the value of one of the user's headers, if it can be sent."""
        if _is_sendable(self.headers[name]):
            return self.headers[name].strip()
        raise ConfigurationError(
            f"The header {name!r} is no text, or holds line breaks or letters that no HTTP header "
            "can carry. Was a whole file pasted in?"
        )

    def _warn_if_exposed(self, url: str) -> None:
        origin = Origin.of(url)
        if origin is None or origin.scheme == "https" or origin in self._exposed_to:
            return
        with self._lock:
            is_first = origin not in self._exposed_to
            self._exposed_to.add(origin)
        if is_first and not origin.is_loopback:
            warnings.warn(
                f"The token is sent to {origin} without encryption: everyone on the way can read "
                "it. Use the server's https address.",
                InsecureTransportWarning,
                stacklevel=2,
            )

    # -- texts and pickles ------------------------------------------------------------------

    def __repr__(self) -> str:
        origins = ", ".join(sorted(map(str, self.origins))) or "the first server read"
        return f"<Credentials {'set' if self.available else 'none'} for {origins}>"

    def state(self, *, with_secrets: bool) -> dict[str, Any]:
        """Return what travels in a pickle; an explicit token only `with_secrets`."""
        state = {
            name: value
            for name, value in self.__dict__.items()
            if name not in {"_lock", "_asked", "_seen", "_exposed_to"}
        }
        if not with_secrets:
            state["headers"] = self.harmless_headers()
            has_more = self._fixed is not None or state["headers"] != self.headers
            state["_left_behind"] = self._left_behind or has_more
            state["_fixed"] = None
        state["_others"] = {
            origin: other.state(with_secrets=with_secrets) for origin, other in self._others.items()
        }
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Credentials:
        """Rebuild what :meth:`state` described."""
        credentials = cls.__new__(cls)
        credentials.__dict__.update(state)
        credentials._others = {o: cls.from_state(s) for o, s in state["_others"].items()}
        credentials._lock = threading.Lock()
        credentials._asked = None
        credentials._seen = KnownSecrets()
        credentials._exposed_to = set()
        return credentials


def _other(host: str, header: str, token: Any) -> Credentials:
    """Return the credentials of a host that has a token of its own, and never gets another."""
    other = Credentials(token, header=header)
    other._named, other._uses_environment = parse_host(host), False
    return other


def _is_sendable(value: object) -> bool:
    """Return whether a header can carry a value."""
    return isinstance(value, str) and value.strip().isascii() and value.strip().isprintable()


def _parse_header(header: str) -> tuple[str, str] | None:
    """Return the name and the scheme of ``header=``, or None for "auto"."""
    expect("header", header, str, wanted="'auto', or the name of a header")
    if header == "auto":
        return None
    name, _, scheme = header.partition(":")
    name, scheme = name.strip(), scheme.strip()
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"\w*", scheme):
        raise ConfigurationError(
            f"header={header!r} is not 'auto', a header name such as 'x-api-key', or a name and "
            "a scheme such as 'Authorization: Bearer'."
        )
    return name, scheme


def _header_value(scheme: str, token: Token) -> Secret:
    kind, _, user = scheme.partition(" ")
    if kind == "Basic" and user:
        return Secret(_basic_auth_str(user, token.value))
    return Secret(f"{scheme} {token.value}") if scheme else token.value
