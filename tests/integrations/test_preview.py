"""Previews of items: thumbnails, footprints and fields."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystac
import pytest

from stac_gitlab import ConfigurationError, GitLabStacIO, Preview, RetryPolicy, preview
from stac_gitlab.testing import Fault, LoopbackServer, SharingHubServer, sample_projects

PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
HOSTILE = '<script>alert("1")</script>'
CANARY = "glpat-canary-0123456789"
WHEN = pystac.utils.str_to_datetime("2020-01-01T00:00:00Z")
SQUARE = [[7, 46], [8, 46], [8, 47], [7, 47], [7, 46]]


@pytest.fixture
def reader() -> Iterator[GitLabStacIO]:
    with GitLabStacIO(retry=RetryPolicy(max_attempts=1)) as reader:
        yield reader


def item_with(geometry: Any = None, bbox: Any = None, **assets: dict[str, Any]) -> pystac.Item:
    item = pystac.Item("lakes", geometry, bbox, WHEN, {"title": "Lakes"})
    for key, fields in assets.items():
        item.add_asset(key, pystac.Asset.from_dict({"roles": ["thumbnail"], **fields}))
    return item


def html_of(shown: Preview) -> str:
    html: str = shown._repr_html_()
    return html


def test_an_item_of_a_hub_is_shown_with_thumbnail_footprint_and_fields() -> None:
    with (
        SharingHubServer(sample_projects(), token=CANARY) as hub,
        GitLabStacIO(CANARY, base_url=hub.url) as reader,
    ):
        url = hub.item_url("alpine/lakes/lake-temperature")
        shown = preview(pystac.Item.from_file(url, stac_io=reader))
        html = html_of(shown)
        assert len([request for request in hub.requests if ".png" in request.path]) == 1
    assert repr(shown) == "<Preview of 'alpine/lakes/lake-temperature'>"
    [image] = re.findall('src="data:image/png;base64,([^"]+)"', html)
    assert base64.b64decode(image) == shown.thumbnail
    assert shown.thumbnail is not None
    assert shown.thumbnail.startswith(b"\x89PNG")
    assert "Lake surface temperature" in html
    assert "45.87 to 46.85 north, 6.87 to 10.04 east" in html
    assert "canary" not in html
    assert len(html) < 20_000


def test_a_local_thumbnail_is_read_and_other_types_are_left_out(
    tmp_path: Path, reader: GitLabStacIO
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    item = item_with(
        svg={"href": "https://h.example.org/a.svg", "type": "image/svg+xml"},
        tif={"href": "https://h.example.org/a.tif", "type": "image/tiff; application=geotiff"},
        png={"href": str(tmp_path / "a.png"), "type": "image/png"},
    )
    assert "refers to a local file" in html_of(preview(item, stac_io=reader))
    item.set_self_href(str(tmp_path / "item.json"))
    assert preview(item, stac_io=reader).thumbnail == PNG
    assert preview(item, stac_io=reader, max_bytes=len(PNG)).thumbnail == PNG
    large = preview(item, stac_io=reader, max_bytes=len(PNG) - 1)
    assert large.thumbnail is None
    assert "more than 107 bytes" in html_of(large)


def test_what_is_wrong_with_a_thumbnail_is_said_in_its_place(
    server: LoopbackServer, reader: GitLabStacIO
) -> None:
    item = item_with(png={"href": f"{server.url}/a.png"})
    server.route("/a.png", b"<svg onload='alert(1)'/>")
    assert "this is no PNG, JPEG, GIF or WebP image" in html_of(preview(item, stac_io=reader))
    server.route("/a.png", PNG * 10)
    large = preview(item, stac_io=reader, max_bytes=500)
    assert large.thumbnail is None
    assert "500" in (large.problem or "")
    server.inject(Fault(status=404))
    assert "404 Not Found" in html_of(preview(item, stac_io=reader))
    assert "<img" not in html_of(preview(item_with(), stac_io=reader))


def test_hostile_fields_are_escaped_and_hold_no_token(reader: GitLabStacIO) -> None:
    item = item_with(bbox=[7, 46, 8, 47])
    item.id = HOSTILE
    item.properties["title"] = f"{HOSTILE}?gitlab_token={CANARY}"
    item.add_asset(HOSTILE, pystac.Asset(HOSTILE))
    html = html_of(preview(item, stac_io=reader))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 3
    assert "canary" not in html


def path_of(geometry: Any, bbox: Any = None) -> str | None:
    svg = preview(item_with(geometry, bbox), stac_io=GitLabStacIO()).footprint
    return None if svg is None else re.findall(' d="([^"]*)"', svg)[0]


@pytest.mark.parametrize(
    ("geometry", "bbox", "path"),
    [
        ({"type": "Polygon", "coordinates": [SQUARE]}, None, "M5.0,145.0 101.4,145.0"),
        ({"type": "MultiPolygon", "coordinates": [[SQUARE], [SQUARE]]}, None, "M5.0,145.0"),
        ({"type": "LineString", "coordinates": SQUARE[:2]}, None, "M5.0,5.0 145.0,5.0"),
        ({"type": "Point", "coordinates": [7, 46]}, None, "M5.0,5.0 5.0,5.0Z"),
        ({"type": "MultiPoint", "coordinates": [[7, 46], [8, 46]]}, None, "M5.0,5.0 5.0,5.0ZM"),
        ({"type": "GeometryCollection", "geometries": [{"coordinates": [7, 46]}]}, None, "M5.0"),
        (None, [7, 46, 8, 47], "M5.0,145.0"),
        (None, [7, 46, 0, 8, 47, 9], "M5.0,145.0"),
    ],
)
def test_a_footprint_is_drawn_with_north_on_top(geometry: Any, bbox: Any, path: str) -> None:
    assert (path_of(geometry, bbox) or "").startswith(path)


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        {"type": "Polygon"},
        {"type": "Polygon", "coordinates": [[["<script>", 1], [float("nan"), 2], [None], 3]]},
        {"type": "GeometryCollection", "geometries": "none"},
        {"type": "Point", "coordinates": [10**400, 1]},
    ],
)
def test_an_invalid_geometry_is_not_drawn(geometry: Any) -> None:
    assert path_of(geometry) is None


def test_a_large_geometry_is_thinned_out() -> None:
    ring = [[n / 1000, n % 7] for n in range(50_000)]
    path = path_of({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}) or ""
    assert path.count(",") <= 1001
    assert path.endswith("Z")
    deep: Any = [1, 2]
    for _ in range(10_000):
        deep = [deep]
    assert path_of({"type": "Polygon", "coordinates": deep}) is None


def test_an_argument_of_the_wrong_type_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="item"):
        preview("lakes")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="max_bytes"):
        preview(item_with(), max_bytes=0)


@pytest.mark.parametrize("bbox", [7, {"a": 1}, "box", [1], [None] * 4])
def test_a_box_of_a_wrong_type_is_not_drawn(bbox: Any) -> None:
    assert path_of(None, bbox) is None
