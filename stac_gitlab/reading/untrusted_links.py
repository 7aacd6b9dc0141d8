"""Links of remote documents that would lead to files on this machine.

pystac follows every link. A server could make it read ``/etc/passwd`` as the child of a catalog,
save an item under a path of the server's choice, or validate against a schema on this disk. Every
remote document therefore passes through here first. An href that would be a local path is resolved
against the URL of the document, or else marked, so that following it raises an error. Names of
extensions stay as they are; validation and saving resolve them. The hrefs of assets are not
changed, because people open assets on shared disks. Downloads check them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from pystac.utils import safe_urlparse

from stac_gitlab.auth import DEFAULT_PORTS, Origin
from stac_gitlab.errors import InvalidResponseError
from stac_gitlab.files.paths import DRIVE_OR_VSI, is_local, is_web

REMOTE_FILE = "remote-file://refused/"
"""Prefix of an href in a remote document that names a local file. Nothing opens it."""


class ExtensionName(str):
    """The name of an extension in a remote document, as it was written.

    pystac takes a name that is no URL for a path, relative to the object or the working folder.

    Attributes:
        schema: What to read in its place: a URL, or an href that was marked.
    """

    __slots__ = ("schema",)
    schema: str

    @classmethod
    def of(cls, name: str, *, url: str) -> ExtensionName:
        """Return a name that a document at `url` has for an extension."""
        made = cls(name)
        made.schema = _secured(name, url, keep_relative=False)
        return made


# The members of a page that are lists of documents.
_LISTS = ("features", "collections")
_SERVER = re.compile(r"http://[^/?#]*", re.IGNORECASE)
_PASSED_OVER = "".join(map(chr, range(33)))
_REMOVED = dict.fromkeys(map(ord, "\t\r\n"))
# The members of a JSON Schema that name it, and those that refer to other schemas.
_SCHEMA_NAMES = frozenset({"$id", "id"})
_SCHEMA_REFERENCES = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "$schema"})


def check_followable(href: str) -> None:
    """Raise InvalidResponseError if an href was marked as a local file."""
    if href.startswith(REMOTE_FILE):
        raise InvalidResponseError(
            f"{href.removeprefix(REMOTE_FILE)}: a document from a server points at a file. It is "
            "not opened: only documents on this machine choose files on this machine.",
            url=href,
        )


def secure_links(document: dict[str, Any], *, url: str) -> None:
    """Change, in place, the links and extensions of a remote document that name local files.

    The document is a catalog, collection or item, or a page of them, of any shape.
    """
    _secure(document, url, listed=False)
    for one in _listed_in(document):
        _secure(one, url, listed=True)


def upgrade_links(document: dict[str, Any], *, url: str) -> None:
    """Change, in place, links and assets that name an https server with http.

    A server behind a proxy that terminates TLS often writes such links. Only the host and port that
    the document came from are upgraded, and the default port of http. ``http://host:443`` is one of
    them for a document of ``https://host``.
    """
    origin = Origin.of(url)
    if origin is None or origin.scheme != "https":
        return
    plain: set[Origin | None] = {
        Origin("http", origin.host, port) for port in (origin.port, DEFAULT_PORTS["http"])
    }
    for holder in (document, *_listed_in(document)):
        assets = holder.get("assets")
        linked = [*_links_of(holder), *(assets.values() if isinstance(assets, dict) else ())]
        for one in linked:
            href = one.get("href") if isinstance(one, dict) else None
            if isinstance(href, str) and _SERVER.match(href) and Origin.of(href) in plain:
                one["href"] = _SERVER.sub(f"https://{urlsplit(url).netloc}", href, count=1)


def _listed_in(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in _LISTS:
        found = document.get(name)
        for one in found if isinstance(found, list) else ():
            if isinstance(one, dict):
                yield one


def with_secured_extensions(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document to save, in which no extension of a remote document names a local file."""
    secured = dict(document)
    names = document.get("stac_extensions")
    if isinstance(names, list):
        secured["stac_extensions"] = [getattr(name, "schema", name) for name in names]
    for field_name in _LISTS:
        if isinstance(document.get(field_name), list):
            secured[field_name] = [
                with_secured_extensions(one) if isinstance(one, dict) else one
                for one in document[field_name]
            ]
    return secured


def secure_schema(text: str, *, url: str) -> str:
    """Return a JSON Schema from the network so that it refers to no file; other text as it is.

    Raises:
        InvalidResponseError: If it is nested too deeply to be searched.
    """
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return text
    try:
        schema = json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        # It is not returned, because another parser may be able to read it.
        raise InvalidResponseError(
            f"{url}: JSON that is nested too deeply to be read.", url=url
        ) from None
    named = list(_texts_under(_SCHEMA_NAMES, schema))
    references = list(_texts_under(_SCHEMA_REFERENCES, schema))
    # urllib joins nothing to a base whose scheme it does not know. A name or reference relative to
    # urn:x stays a path, and would be opened on this machine.
    bases_are_web = all(
        _scheme_of(value) in ("", "http", "https") and not _names_file(value)
        for _, _, value in named
    )
    found = [
        (holder, name)
        for holder, name, value in (*named, *references)
        if _names_file(value) or not (bases_are_web or value[:1] == "#" or _scheme_of(value))
    ]
    for holder, name in found:
        holder[name] = f"{REMOTE_FILE}{holder[name]}"
    return json.dumps(schema) if found else text


def _secure(holder: dict[str, Any], url: str, *, listed: bool) -> None:
    if _leads_to_the_web(holder):
        return
    links = list(_links_of(holder))
    # A document that was read by its URL belongs there. A listed one belongs to its self link.
    is_remote = not listed or any(
        link.get("rel") == "self" and is_web(link.get("href")) for link in links
    )
    for link in links:
        href = link.get("href")
        if isinstance(href, str) and href and not is_web(href):
            keep = is_remote and link.get("rel") != "self"
            link["href"] = _secured(href, url, keep_relative=keep)
    named = holder.get("stac_extensions")
    extensions: list[Any] = named if isinstance(named, list) else []
    for index, name in enumerate(extensions):
        if isinstance(name, str) and not is_web(name):
            extensions[index] = ExtensionName.of(name, url=url)


def _leads_to_the_web(holder: dict[str, Any]) -> bool:
    """Return whether all links are plain web URLs, as in nearly all documents."""
    links, extensions = holder.get("links"), holder.get("stac_extensions", [])
    return (
        type(links) is type(extensions) is list
        and all(type(link) is dict and is_web(link.get("href")) for link in links)
        and all(map(is_web, extensions))
    )


def _links_of(holder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    links = holder.get("links")
    if isinstance(links, dict):
        # The first STAC versions had an object in place of the list.
        links = list(links.values())
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict):
            yield link


def _secured(href: str, url: str, *, keep_relative: bool) -> str:
    seen = _as_parsed(href)
    try:
        path = safe_urlparse(seen).path
    except ValueError:
        # It is not a URL. `check_stac` reports it.
        return href
    if _names_file(href):
        return f"{REMOTE_FILE}{href}"
    if not is_local(seen):
        return href
    # pystac takes a path from the root of the server for a path on this machine.
    rooted = path.startswith(("/", "\\")) or seen.startswith("//")
    if keep_relative and not rooted:
        return href
    try:
        joined = urljoin(url, href.replace("\\", "/") if rooted else href)
        return f"{REMOTE_FILE}{href}" if is_local(joined) else joined
    except ValueError:
        return f"{REMOTE_FILE}{href}"


def _names_file(href: str) -> bool:
    """Return whether an href names a file, no matter what it is relative to."""
    try:
        parts = safe_urlparse(_as_parsed(href))
    except ValueError:
        return False
    return parts.scheme == "file" or (
        parts.scheme == "" and DRIVE_OR_VSI.match(parts.path) is not None
    )


def _as_parsed(href: str) -> str:
    """Return an href without the characters that urllib ignores.

    pystac looks at what is left, and takes ``c:/x`` for a drive, but not a ``c`` with a tab.
    """
    return href.lstrip(_PASSED_OVER).translate(_REMOVED)


def _scheme_of(href: str) -> str:
    """Return the scheme as urllib sees it, which ignores spaces and line breaks."""
    try:
        return urlsplit(href).scheme
    except ValueError:
        return "none"


def _texts_under(names: frozenset[str], schema: Any) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield each text under one of `names`, at any depth, with its object and its name."""
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from (
                (one, n, one[n]) for n in names.intersection(one) if isinstance(one[n], str)
            )
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
