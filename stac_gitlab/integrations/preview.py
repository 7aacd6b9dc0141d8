"""Items in a notebook: thumbnail, footprint and main fields."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pystac

from stac_gitlab.download.assets import asset_roles
from stac_gitlab.download.source import Locator
from stac_gitlab.errors import DownloadError, STACGitLabError
from stac_gitlab.http.responses import Document
from stac_gitlab.notebook import Markup, html_fields, html_text
from stac_gitlab.reading.stac_io import GitLabStacIO, default_reader, reader_of
from stac_gitlab.redaction import quoted, redact
from stac_gitlab.settings import expect, whole_number

_ROLES = ("thumbnail", "overview")
# The first bytes of what browsers show, besides SVG, which can hold scripts.
_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
}
_SIDE = 150
"""Pixels of the longer side of a footprint."""
_MAX_POINTS = 1000
_MAX_DEPTH = 16

_Point = tuple[float, float]


@dataclass(frozen=True, repr=False)
class Preview:
    """What :func:`preview` shows of an item.

    Attributes:
        item: The item.
        thumbnail: The image; None if there is none.
        footprint: The geometry as SVG; None if there is none.
        problem: Why there is no thumbnail, although the item has one.
    """

    item: pystac.Item
    thumbnail: bytes | None
    footprint: str | None
    problem: str | None = None

    def __repr__(self) -> str:
        return redact(f"<Preview of {quoted(self.item.id)}>")

    def _repr_html_(self) -> str:
        item, image = self.item, ""
        if self.thumbnail is not None:
            content = base64.b64encode(self.thumbnail).decode("ascii")
            source = f"data:{_media_type(self.thumbnail)};base64,{content}"
            image = f'<img src="{source}" alt="thumbnail" style="max-width:300px;max-height:300px">'
        fields = html_fields(
            item.id,
            {
                "title": item.properties.get("title"),
                "collection": item.collection_id,
                "datetime": item.properties.get("datetime"),
                "bbox": item.bbox,
                "assets": ", ".join(map(str, item.assets)),
                "thumbnail": self.problem,
                "footprint": None if self.footprint is None else Markup(self.footprint),
            },
        )
        return f'<div style="display:flex;gap:1em;align-items:flex-start">{image}{fields}</div>'


def preview(
    item: pystac.Item, *, stac_io: GitLabStacIO | None = None, max_bytes: int = 1_000_000
) -> Preview:
    """Return an object that a notebook shows as the thumbnail, the footprint and the main fields.

    The thumbnail is requested once, and embedded. It is the first asset with the role
    ``thumbnail`` or ``overview`` that is a PNG, JPEG, GIF or WebP image. A thumbnail that cannot be
    read does not raise an error: the preview says what is wrong.

    Args:
        item: The item.
        stac_io: The reader; by default that of the item.
        max_bytes: The maximum size of the thumbnail, in bytes. Larger ones are not shown.

    Raises:
        ConfigurationError: If an argument is not valid.
    """
    expect("item", item, pystac.Item, wanted="an item")
    whole_number("max_bytes", max_bytes, least=1)
    reader = stac_io or reader_of(item) or default_reader()
    thumbnail = problem = None
    try:
        thumbnail = _thumbnail(item, reader, max_bytes)
    except (STACGitLabError, OSError) as error:
        problem = str(error)
    return Preview(item, thumbnail, footprint_of(item), problem)


def _thumbnail(item: pystac.Item, reader: GitLabStacIO, max_bytes: int) -> bytes | None:
    for role in _ROLES:
        for key, asset in item.assets.items():
            if role in asset_roles(asset) and not _is_other(asset.media_type):
                content = _content(item, key, asset, reader, max_bytes)
                if _media_type(content) is None:
                    raise DownloadError(f"{quoted(key)}: this is no PNG, JPEG, GIF or WebP image.")
                return content
    return None


def _is_other(media_type: object) -> bool:
    """Return whether a media type is none of the images that are shown."""
    named = str(media_type or "").partition(";")[0].strip().lower()
    return bool(named) and named not in {*_IMAGES.values(), "image/jpg"}


def _content(
    item: pystac.Item, key: str, asset: pystac.Asset, reader: GitLabStacIO, max_bytes: int
) -> bytes:
    source, path = Locator(reader.session, verify=False).locate(item, key, asset)
    if path is None:

        def body(response: Document) -> bytes:
            return response.body

        return reader.session.fetch(source.url, body, max_bytes=max_bytes)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DownloadError(f"{quoted(key)}: the image has more than {max_bytes} bytes.")
    return content


def _media_type(content: bytes) -> str | None:
    return next((kind for start, kind in _IMAGES.items() if content.startswith(start)), None)


# -- footprints ---------------------------------------------------------------------------------


def footprint_of(item: pystac.Item) -> str | None:
    """Return the geometry of an item as SVG, or else its bounding box; None without both."""
    lines = [line for line in _lines(item.geometry, 0) if line]
    if not lines:
        lines = [line for line in [_box(item.bbox)] if line]
    if not lines:
        return None
    step = max(1, -(-sum(map(len, lines)) // _MAX_POINTS))
    lines = [[*line[:-1:step], line[-1]] for line in lines[:_MAX_POINTS]]
    points = [point for line in lines for point in line]
    west, east = min(x for x, _ in points), max(x for x, _ in points)
    south, north = min(y for _, y in points), max(y for _, y in points)
    # A degree of longitude is shorter than one of latitude.
    shrink = max(0.1, math.cos(math.radians((south + north) / 2)))
    width, height = (east - west) * shrink, north - south
    scale = (_SIDE - 10) / (max(width, height) or 1.0)

    def place(point: _Point) -> str:
        x, y = (point[0] - west) * shrink * scale + 5, (north - point[1]) * scale + 5
        return f"{x:.1f},{y:.1f}"

    path = "".join(
        f"M{' '.join(map(place, line))}{'Z' if line[0] == line[-1] else ''}" for line in lines
    )
    label = html_text(f"{south:.2f} to {north:.2f} north, {west:.2f} to {east:.2f} east")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * scale + 10:.0f}" '
        f'height="{height * scale + 10:.0f}"><title>{label}</title><path d="{path}" '
        'fill="#4a90d9" fill-opacity="0.3" fill-rule="evenodd" stroke="#2a6099" stroke-width="2" '
        'stroke-linecap="round"/></svg>'
    )


def _lines(geometry: Any, depth: int) -> Iterator[list[_Point]]:
    """Yield the rings, lines and points of a GeoJSON geometry, as far as they are valid."""
    if isinstance(geometry, dict) and depth < _MAX_DEPTH:
        if geometry.get("type") == "MultiPoint":
            for point in _list(geometry.get("coordinates")):
                yield from _lines(point, depth + 1)
            return
        yield from _lines(geometry.get("coordinates"), depth + 1)
        for part in _list(geometry.get("geometries")):
            yield from _lines(part, depth + 1)
    elif isinstance(geometry, (list, tuple)) and depth < _MAX_DEPTH:
        if (point := _point(geometry)) is not None:
            yield [point, point]
            return
        line = [point for each in geometry if (point := _point(each)) is not None]
        if line:
            yield line
        for part in geometry:
            if _point(part) is None:
                yield from _lines(part, depth + 1)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _point(value: Any) -> _Point | None:
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return None
    x, y = value[:2]
    if not all(isinstance(each, (int, float)) and abs(each) < 1e6 for each in (x, y)):
        return None
    return float(x), float(y)


def _box(bbox: Any) -> list[_Point]:
    if not isinstance(bbox, (list, tuple)):
        return []
    half = len(bbox) // 2
    first, last = _point(bbox[:half]), _point(bbox[half:])
    if first is None or last is None:
        return []
    (west, south), (east, north) = first, last
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]
