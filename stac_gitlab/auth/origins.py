"""Origins: scheme, host and port of a URL, in the form in which requests sends it."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3
from urllib3.util import parse_url

from stac_gitlab.errors import ConfigurationError
from stac_gitlab.redaction import quoted, redact
from stac_gitlab.settings import expect

# Their documents are public. If one of them is read first, the token must not be bound to it: it
# would be sent to a third party, and be missing where it is needed.
PUBLIC_HOSTS = frozenset(
    {
        "api.stacspec.org",
        "cdn.jsdelivr.net",
        "geojson.org",
        "json-schema.org",
        "proj.org",
        "schemas.opengis.net",
        "schemas.stacspec.org",
        "stacspec.org",
        "www.opengis.net",
    }
)
PUBLIC_SUFFIXES = (".github.io", ".githubusercontent.com", ".gitlab.io")
DEFAULT_PORTS = {"http": 80, "https": 443}
_QUERY = re.compile("[?#]")
_API = re.compile(r"(?:^|/)api(?:/|$)")
# A URL that requests and urllib3 send as it is: its origin and its target. They would unquote what
# needs no quotes, and resolve "." and "..".
_SENT = r"[\w.~!$&'()*+,;=:@/-]|%(?:[0189A-F][\dA-F]|2[\dA-CF]|3[A-F]|40|5[B-E]|60|7[B-DF])"
PREPARED_URL = re.compile(
    rf"(https?://[a-z0-9.-]+(?::[1-9]\d*)?)(?!.*/[./])(/(?:{_SENT})*(?:\?(?:{_SENT}|\?)+)?)",
    re.ASCII,
)
# The signatures of Azure, CloudFront, S3 and Google Cloud Storage.
_SIGNED_BY = frozenset({"sig", "signature", "x-amz-signature", "x-goog-signature"})
# Parsers of URLs disagree about an authority that contains one of these.
_AMBIGUOUS = frozenset("\\@ ")


class Origin(NamedTuple):
    """Scheme, host and port of a URL, in the one form in which they can be compared."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin | None:
        """Return the origin to which requests will send a request for `url`.

        The host is lower case, in its ASCII form and without a trailing dot, and the port is
        always a number. None stands for everything that is not sent: another scheme, and an
        authority with user info, a backslash, a space or a control character, which parsers of
        URLs understand differently.
        """
        # The rest of the URL does not matter. What comes before it repeats, so it is cached.
        return _origin_of("/".join(url.split("/", 3)[:3]))

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_public_metadata(self) -> bool:
        return self.host in PUBLIC_HOSTS or self.host.endswith(PUBLIC_SUFFIXES)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


@functools.lru_cache(maxsize=1024)
def _origin_of(url: str) -> Origin | None:
    scheme, _, authority = _QUERY.split(url, maxsplit=1)[0].partition("://")
    if not authority.isprintable() or not _AMBIGUOUS.isdisjoint(authority):
        return None
    prepared = requests.PreparedRequest()
    try:
        prepared.prepare_url(f"{scheme}://{authority}", None)
        parts = parse_url(prepared.url or "")
    except (requests.RequestException, ValueError, urllib3.exceptions.LocationParseError):
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.host:
        return None
    host = parts.host.strip("[]").lower().removesuffix(".")
    port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    return Origin(parts.scheme, host, port)


def request_url(url: str) -> str:
    """Return `url` in the form in which requests sends it, which all decisions are made with.

    Raises:
        ConfigurationError: If it has no origin.
        ValueError: If it cannot be encoded.
    """
    if Origin.of(url) is None:
        advice = "Check the scheme, the host and the port."
        if "@" in _QUERY.split(url, maxsplit=1)[0].partition("://")[2].partition("/")[0]:
            advice = (
                "A user name or password in the URL is not sent; pass headers={'Authorization': "
                "...} or use a .netrc file."
            )
        raise ConfigurationError(f"{quoted(redact(url))} is not a URL to request. {advice}")
    if PREPARED_URL.fullmatch(url):
        return url
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, None)
    return prepared.url or ""


def parse_host(text: str) -> frozenset[Origin]:
    """Read one entry of ``hosts=``: a URL, or a bare host with or without a port.

    A bare name means https, and on the loopback interface http as well.
    """
    is_url = "://" in text
    origin = Origin.of(text if is_url else f"https://{text}")
    if origin is None or "*" in text:
        raise ConfigurationError(
            f"{redact(text)!r} is not a host. Give a URL such as 'https://gitlab.example.org' or a "
            "bare host name."
        )
    http = Origin.of(f"http://{text}") if origin.is_loopback and not is_url else None
    return frozenset({origin} if http is None else {origin, http})


def paths_of_servers(urls: Iterable[str]) -> dict[Origin, str]:
    """Return the paths of the servers that are below one, such as ``/gitlab``, by origin.

    Args:
        urls: The addresses of servers, or of their APIs, as for :func:`parse_host`.
    """
    paths: dict[Origin, str] = {}
    for url in urls:
        address = _QUERY.split(url, maxsplit=1)[0].rpartition("://")[2]
        path = _API.split(address.partition("/")[2], maxsplit=1)[0].strip("/")
        # "/-/" stands behind the path of a project.
        if path and "/-/" not in address:
            paths |= dict.fromkeys(parse_host(url), f"/{path}")
    return paths


def path_of_server(url: str, paths: Mapping[Origin, str]) -> str:
    """Return the path of the server of `url`, or an empty text if it is at the root of its host."""
    origin = Origin.of(url)
    if origin is None:
        return ""
    path = paths.get(origin, "")
    return path if urlsplit(url).path.startswith(f"{path}/") else ""


def is_signed(url: str) -> bool:
    """Return whether a URL contains a signature, beside which storage services accept no other."""
    query = url.partition("?")[2].partition("#")[0]
    return any(pair.partition("=")[0].lower() in _SIGNED_BY for pair in query.split("&"))


def parse_hosts(name: str, hosts: Iterable[str] | None) -> frozenset[Origin]:
    """Read an argument that names servers, one or several of them, as :func:`parse_host` does."""
    hosts = [hosts] if isinstance(hosts, str) else hosts or ()
    expect(name, hosts, Iterable, wanted="a list of URLs or host names")
    named: set[Origin] = set()
    for host in hosts:
        expect(name, host, str, wanted="a list of URLs or host names")
        named |= parse_host(host)
    return frozenset(named)
