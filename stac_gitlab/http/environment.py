"""What the environment says about an origin: proxies, certificates and .netrc logins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.auth import _basic_auth_str

from stac_gitlab.auth import Origin
from stac_gitlab.redaction import Secret, remember_secrets

# The variables that requests reads for every request.
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


class Environment:
    """Looks up the settings of origins for a session, and remembers them.

    requests looks up all of it for every request, which takes longer than a small response.
    """

    def __init__(self, session: requests.Session) -> None:
        self._session = session
        self._known: dict[int, OriginSettings] = {}

    def settings(self, url: str) -> OriginSettings:
        """Return the settings for the origin of `url`."""
        session = self._session
        key = (
            Origin.of(url),
            *(session.verify, session.cert, session.trust_env),
            *session.proxies.items(),
            *map(os.environ.get, _VARIABLES),
        )
        # Only its hash is kept, because the values may hold passwords.
        found = self._known.get(hash(key))
        if found is None:
            found = self._known[hash(key)] = self._look_up(url)
        return found

    def _look_up(self, url: str) -> OriginSettings:
        send: dict[str, Any] = dict(
            self._session.merge_environment_settings(url, {}, True, None, None)
        )
        remember_secrets(filter(None, map(_login_in, send["proxies"].values())))
        return OriginSettings(send, _netrc_login(url) if self._session.trust_env else None)


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
