"""Items to download, the content of their files, and checks of the output folder."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pystac
from fault_server import ServedFile

from stac_gitlab.download.content_version import FILE_NAME
from stac_gitlab.files.partial_file import OWN_PREFIX
from stac_gitlab.testing import Answer, LoopbackServer, RecordedRequest

TOKEN = "glpat-do-not-show-this"
BODY = random.Random(1).randbytes(40_000)
CHANGED = random.Random(2).randbytes(40_000)
SHA256 = "1220" + hashlib.sha256(BODY).hexdigest()


def multihash_of(content: bytes) -> str:
    """Return the `file:checksum` of this content."""
    return "1220" + hashlib.sha256(content).hexdigest()


def item_of(
    assets: Mapping[str, str | dict[str, Any]],
    *,
    at: str | None = None,
    roles: Any = ("data",),
    item_id: str = "group/lakes",
) -> pystac.Item:
    """Return an item with these assets: hrefs, or whole assets, by key."""
    item = pystac.Item(item_id, None, None, dt.datetime(2020, 1, 1, tzinfo=dt.UTC), {})
    if at is not None:
        item.set_self_href(at)
    for key, asset in assets.items():
        fields = {"href": asset} if isinstance(asset, str) else asset
        item.add_asset(key, pystac.Asset.from_dict({"roles": list(roles), **fields}))
    return item


def served(
    server: LoopbackServer, *keys: str, item_id: str = "group/lakes", **contents: bytes
) -> pystac.Item:
    """Return an item whose assets the server serves."""
    files = {**{key: f"content of {key}".encode() for key in keys}, **contents}
    for key, content in files.items():
        server.route(f"/files/{key}", ServedFile(content))
    hrefs = {key: f"{server.url}/files/{key}" for key in files}
    return item_of(hrefs, at=f"{server.url}/items/lakes", item_id=item_id)


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder, without the record file."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != FILE_NAME
    }


def leftovers_in(folder: Path) -> list[str]:
    """Return the names of our own files below a folder, without the record file."""
    return [p.name for p in folder.rglob(f"{OWN_PREFIX}*") if p.name != FILE_NAME]


class Conditional:
    """A route that responds with 304 to a client that has this version."""

    def __init__(
        self, content: bytes, *, etag: str | None = None, modified: str | None = None
    ) -> None:
        self.content = content
        self.etag = etag
        self.modified = modified

    def __call__(self, request: RecordedRequest) -> Answer:
        named = {"etag": self.etag, "last-modified": self.modified}
        answer = Answer(200, (), self.content).with_headers(named)
        held = (request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since"))
        known = (held[0] is not None and held[0] == self.etag) or (
            held[1] is not None and held[1] == self.modified
        )
        return Answer(304).with_headers(named) if known else answer
