"""What to do about a refused request: which credential was sent, and which the server wants."""

from __future__ import annotations

import re

import requests

from stac_gitlab.auth import Origin, is_signed
from stac_gitlab.http.base_session import BaseSession, may_carry_secrets

_USUAL = {
    304: "The request had no condition that this could answer. Try again later.",
    400: "The server rejects this request. Check the URL and its parameters.",
    401: "The server requires a valid credential. Check the token, its scope and its expiry date.",
    403: "The credential is valid, but does not allow this. Request access, or check the scope of "
    "the token.",
    404: "It does not exist, or this token has no access to it. Check the URL.",
    405: "The server does not offer this operation here.",
    409: "It exists already, or conflicts with what exists. Update it, or choose another id.",
    410: "It was removed permanently.",
    412: "It has changed since it was read. Read it again and repeat the change.",
    422: "The server rejects one of the values in the request. Check the parameters and the body.",
    429: "Too many requests. Send fewer at a time, or try again later.",
}
# Of a request that changes nothing.
_USUAL_FOR_READING = {
    409: "The server cannot send this in its present state. Try again later.",
    412: "The server sends this under a condition only. Try again later.",
    422: "The server rejects one of the values in the request. Check the parameters.",
}
# Of a request without a token: with nothing, a login or a signature.
_USUAL_WITHOUT_TOKEN = {
    401: "The server requires a valid credential.",
    403: "The server does not allow this.",
    404: "It does not exist, or you have no access to it. Check the URL.",
}
# Headers of storage services, which know no tokens of GitLab.
_STORAGE_HEADERS = re.compile(r"x-(?:ms|amz|goog|oss|obs)-.*", re.IGNORECASE)
_STORAGE_SERVERS = re.compile(r"AmazonS3|Windows-Azure|MinIO|UploadServer|Ceph", re.IGNORECASE)
# The schemes of logins with a name and a password.
_LOGIN = re.compile(r"(?:^|,)\s*+(?:basic|digest|negotiate|ntlm)\b", re.IGNORECASE)


def usual_advice(method: str, url: str, status: int, *, has_token: bool = True) -> str:
    """Return what the status of an error usually means, and what to do."""
    if not has_token and status in _USUAL_WITHOUT_TOKEN:
        return _USUAL_WITHOUT_TOKEN[status]
    if status in _USUAL_FOR_READING and (method in ("GET", "HEAD") or _is_search(method, url)):
        return _USUAL_FOR_READING[status]
    if status in _USUAL:
        return _USUAL[status]
    if status >= 500:
        return "The server failed. Try again later."
    if 300 <= status < 400:
        return "The server redirects without a target."
    return "The server rejects this request. Check the URL."


def advice_on_refusal(response: requests.Response, session: BaseSession) -> str:
    """Return what an error status means, and what to do."""
    method, url, status = response.request.method or "GET", response.url, response.status_code
    advice = session.dialect_of(url).advice.get(status)
    if advice is None:
        has_token = (
            not is_signed(url)
            and session.netrc_login(method, url) is None
            and session.credentials.available
            and session.credentials.allows(url)
            and not session.credentials.for_url(url).is_withheld
        )
        advice = usual_advice(method, url, status, has_token=has_token)
    more = advice_on_credentials(response, session) if status in (401, 403, 404, 410) else None
    return advice if more is None else f"{advice} {more}"


def advice_on_credentials(response: requests.Response, session: BaseSession) -> str | None:
    """Return what a refusal has to do with the credentials, and what to do; None if nothing.

    Args:
        response: A response with the status 401, 403, 404 or 410, or with a sign-in page.
        session: The session that sent the request.
    """
    method, url = response.request.method or "GET", response.url
    server, credentials = Origin.of(url), session.credentials
    asked = response.history[0].url if response.history else url
    page = session.dialect_of(asked).advice_for_page(asked)
    if page is not None:
        return page
    if is_signed(url):
        return (
            "The URL is signed, so nothing else was sent. If the signature has expired, read the "
            "item again to get a new one."
        )
    if session.netrc_login(method, url) is not None:
        return f"The login for {server} in the .netrc file was sent. Check it."
    is_available, is_allowed = credentials.available, credentials.allows(url)
    if not (is_available and is_allowed) and _has_own_logins(response):
        return (
            f"No token was sent to {server}, which has logins of its own. Put yours into the "
            f".netrc file, or pass hosts={{'{server}': ...}} with its header and token."
        )
    if not is_available:
        advice = "No token was sent. Pass one to GitLabStacIO, or set STAC_GITLAB_TOKEN."
        return f"{advice} Without one, try method='GET'." if _is_search(method, url) else advice
    if not is_allowed:
        origins = ", ".join(sorted(map(str, credentials.origins))) or "no server yet"
        return (
            f"The token was not sent to {server}: it belongs to {origins}. To send it "
            "there, too, name that server in hosts=. If it has a token or header of its own, "
            f"pass hosts={{'{server}': ...}}."
        )
    if not may_carry_secrets(method, url):
        advice = (
            f"The token was not sent with this {method}, because a link named its URL. Open "
            "that server itself with STACAPI or stac_gitlab.search.open_client"
        )
        return f"{advice}, or use method='GET'." if _is_search(method, url) else f"{advice}."
    if credentials.for_url(url).is_withheld:
        return "No token was sent: the function that was passed as token= returned None."
    return None


def _is_search(method: str, url: str) -> bool:
    return method == "POST" and url.partition("?")[0].endswith("/search")


def _has_own_logins(response: requests.Response) -> bool:
    """Return whether the server is a storage service, or wants a name and a password."""
    headers = response.headers
    return (
        any(map(_STORAGE_HEADERS.fullmatch, headers))
        or _STORAGE_SERVERS.search(headers.get("Server", "")) is not None
        or _LOGIN.search(headers.get("WWW-Authenticate", "")) is not None
    )
