"""Which redirects are followed, and what is sent with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3

from stac_gitlab.auth import Credentials, Origin
from stac_gitlab.errors import InvalidResponseError, STACGitLabError
from stac_gitlab.http.decoding import reader_of
from stac_gitlab.http.transport import length_in
from stac_gitlab.redaction import (
    CREDENTIAL_HEADERS,
    MAX_ERROR_BODY,
    redact_known,
    strip_token_parameters,
)

SAFE_METHODS = frozenset({"GET", "HEAD"})
# The body of a redirect is read up to here so that its connection can be used again. For a longer
# one it is cheaper to close the connection.
_SMALL_BODY = 64 * 1024


class RedirectRules(requests.Session):
    """The part of a session that requests asks about redirects."""

    credentials: Credentials

    def netrc_login(self, method: str, url: str) -> tuple[str, str] | None:
        """Return the .netrc login for a request."""
        raise NotImplementedError

    def resolve_redirects(
        self, resp: requests.Response, req: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> Iterator[requests.Response]:
        """Follow redirects, as requests calls it, without reading long bodies of theirs."""
        if resp.is_redirect:
            _drop_body(resp)
            req.prepare_cookies({})
        try:
            yield from super().resolve_redirects(resp, req, *args, **kwargs)
        except (requests.RequestException, STACGitLabError):
            raise
        except ValueError as error:
            # requests does not expect that a Location cannot be parsed.
            raise requests.exceptions.InvalidURL(str(error)) from None

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
        names = {"cookie"}
        if Origin.of(url) != Origin.of(response.url):
            names |= CREDENTIAL_HEADERS
            login = self.netrc_login(prepared_request.method or "", url)
        else:
            login = None
        for name in [name for name in headers if name.lower() in names]:
            del headers[name]
        if login is not None:
            prepared_request.prepare_auth(login)


def beginning_of_body(response: requests.Response) -> bytes:
    """Read as much of an error's body as is kept, and as can be read of it."""
    body = b""
    try:
        read = reader_of(response)
        while piece := read(MAX_ERROR_BODY - len(body)):
            body += piece
            if len(body) >= MAX_ERROR_BODY:
                response.raw.close()
                break
    except (InvalidResponseError, urllib3.exceptions.HTTPError, OSError):
        response.raw.close()
    return body


def _drop_body(response: requests.Response) -> None:
    """Discard the body of a redirect without reading a long one."""
    length = length_in(response.headers)
    if length is not None and length <= _SMALL_BODY:
        beginning_of_body(response)
    else:
        response.raw.close()
    response._content = b""
    response._content_consumed = True  # type: ignore[attr-defined]  # what .content looks at
