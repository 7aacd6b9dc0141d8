"""What a remote document may point at: other places on the network, never this machine.

pystac follows whatever a link says, so a server could make it read ``/etc/passwd`` as the child of
a catalog, save an item under the path that the item calls its own, or validate against a schema on
this disk. What comes over the network therefore passes here before pystac sees it: an href that
would be a local path where it is used is resolved against the document's URL if that makes sense
of it, and otherwise marked, so that following it is an error. The hrefs of assets stay as they are:
users may open those on shared disks; where they may be downloaded from is decided in ``hrefs``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

from pystac.utils import safe_urlparse

from stac_gitlab.errors import InvalidResponseError

__all__ = ["REMOTE_FILE", "check_is_followable", "confine", "confined_schema", "is_local_path"]

REMOTE_FILE = "remote-file://refused/"
"""Stands before an href that was found in a remote document and names a file. Nothing opens it."""

# What may list documents inside a document.
_LISTS = ("features", "collections")

# The first STAC versions called extensions by a bare word; pystac knows which schema that is.
_SHORT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9:-]*")

# A drive, or a scheme with a single slash, which pystac takes for one; and GDAL's file systems.
_DRIVE_OR_VSI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\]|/vsi")

# Where JSON Schema looks up other schemas.
_SCHEMA_REFERENCES = frozenset({"$id", "id", "$ref", "$dynamicRef", "$recursiveRef", "$schema"})


def is_local_path(href: str) -> bool:
    """Tell whether an href means a path, relative or absolute, or a ``file:`` URL."""
    return safe_urlparse(href).scheme in ("", "file")


def check_is_followable(href: str) -> None:
    """Check that an href is not one that was marked.

    Raises:
        InvalidResponseError: If it is.
    """
    if href.startswith(REMOTE_FILE):
        raise InvalidResponseError(
            f"{href.removeprefix(REMOTE_FILE)}: a document from a server points at a file. It is "
            "not opened: only documents on this machine choose files on this machine.",
            url=href,
        )


def confine(document: dict[str, Any], *, url: str) -> None:
    """Let no link or extension of a remote document lead to this machine. Changes it in place.

    Args:
        document: A catalog, collection or item, or a page of them, of any shape.
        url: Where it came from.
    """
    _confine(document, url, listed=False)
    for name in _LISTS:
        listed = document.get(name)
        for one in listed if isinstance(listed, list) else ():
            if isinstance(one, dict):
                _confine(one, url, listed=True)


def confined_schema(text: str) -> str:
    """Return a JSON Schema that refers to no file; any other text as it is."""
    if not text.lstrip("\ufeff \t\r\n").startswith("{"):
        return text
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        return text
    found = [
        (holder, name)
        for holder in _objects_in(schema)
        for name in _SCHEMA_REFERENCES.intersection(holder)
        if isinstance(holder[name], str) and _names_file(holder[name])
    ]
    for holder, name in found:
        holder[name] = f"{REMOTE_FILE}{holder[name]}"
    return json.dumps(schema) if found else text


def _confine(holder: dict[str, Any], url: str, *, listed: bool) -> None:
    if _leads_to_the_web(holder):
        return
    links = list(_links_of(holder))
    # What was read by its own URL stands there; what is listed stands where it says.
    stands_remote = not listed or any(
        link.get("rel") == "self" and _is_web(link.get("href")) for link in links
    )
    for link in links:
        href = link.get("href")
        if isinstance(href, str) and href and not _is_web(href):
            keep = stands_remote and link.get("rel") != "self"
            link["href"] = _confined(href, url, keep_relative=keep)
    named = holder.get("stac_extensions")
    extensions: list[Any] = named if isinstance(named, list) else []
    for index, name in enumerate(extensions):
        if isinstance(name, str) and not _is_web(name) and not _SHORT_NAME.fullmatch(name):
            extensions[index] = _confined(name, url, keep_relative=False)


def _leads_to_the_web(holder: dict[str, Any]) -> bool:
    """Tell, quickly, whether nothing has to be done, which is so for nearly all documents."""
    links, extensions = holder.get("links"), holder.get("stac_extensions")
    if type(links) is not list or not (extensions is None or type(extensions) is list):
        return False
    for link in links:
        if type(link) is not dict or not _is_web(link.get("href")):
            return False
    return extensions is None or all(map(_is_web, extensions))


def _links_of(holder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    links = holder.get("links")
    if isinstance(links, dict):
        # The first STAC versions had an object in place of the list.
        links = list(links.values())
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict):
            yield link


def _confined(href: str, url: str, *, keep_relative: bool) -> str:
    try:
        path = safe_urlparse(href).path
    except ValueError:
        # No URL at all, which is told when the shape of the document is checked.
        return href
    if _names_file(href):
        return f"{REMOTE_FILE}{href}"
    if not is_local_path(href):
        return href
    # As written, pystac takes a path from the root of the server for one on this machine.
    rooted = path.startswith(("/", "\\")) or href.startswith("//")
    if keep_relative and not rooted:
        return href
    try:
        joined = urljoin(url, href.replace("\\", "/") if rooted else href)
        return f"{REMOTE_FILE}{href}" if is_local_path(joined) else joined
    except ValueError:
        return f"{REMOTE_FILE}{href}"


def _names_file(href: str) -> bool:
    """Tell whether an href names a file whatever it is relative to."""
    try:
        parts = safe_urlparse(href)
    except ValueError:
        return False
    return parts.scheme == "file" or (
        parts.scheme == "" and _DRIVE_OR_VSI.match(parts.path) is not None
    )


def _is_web(href: object) -> bool:
    return isinstance(href, str) and href.startswith(("http://", "https://"))


def _objects_in(value: Any) -> Iterator[dict[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
