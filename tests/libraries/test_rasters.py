"""Rasters: rasterio, rioxarray, odc-stac and stackstac."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import rioxarray
import stackstac
from rasterio.windows import Window
from server_process import PROJECT, Servers

from stac_gitlab import GitLabStacIO, RasterioOpener, gdal_env
from stac_gitlab.errors import ConfigurationError, DownloadError, NotFoundError

TOKEN = "glpat-canary-of-the-libraries"
WINDOW = Window(1024, 1024, 512, 512)


@pytest.fixture
def reader(servers: Servers) -> Iterator[GitLabStacIO]:
    with GitLabStacIO(TOKEN, base_url=servers.hub, hosts=[servers.data]) as made:
        yield made


@pytest.fixture
def href(servers: Servers, reader: GitLabStacIO) -> str:
    """The href of a raster on the hub, which ignores ranges."""
    url = f"{servers.hub}/api/stac/collections/dataset/items/{PROJECT}"
    item = pystac.Item.from_file(url, stac_io=reader)
    servers.requests()
    return item.assets["large.tif"].href


@pytest.fixture
def window(files: Path) -> Any:
    with rasterio.open(files / "large.tif") as raster:
        return raster.read(1, window=WINDOW)


def item_at(href: str, path: Path) -> pystac.Item:
    """Return an item with the projection of a raster, as odc-stac and stackstac need it."""
    with rasterio.open(path) as raster:
        transform, shape, bounds = list(raster.transform), list(raster.shape), raster.bounds
    west, south, east, north = rasterio.warp.transform_bounds("EPSG:32632", "EPSG:4326", *bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = pystac.Item(
        "one",
        {"type": "Polygon", "coordinates": [ring]},
        [west, south, east, north],
        datetime(2023, 6, 1, tzinfo=UTC),
        {"proj:epsg": 32632, "proj:code": "EPSG:32632"},
    )
    item.stac_extensions = ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"]
    asset = pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"])
    asset.extra_fields = {"proj:transform": transform, "proj:shape": shape}
    item.add_asset("image", asset)
    return item


# -- the opener -----------------------------------------------------------------------------------


def test_a_window_takes_two_requests(
    servers: Servers, reader: GitLabStacIO, window: Any, files: Path
) -> None:
    size = (files / "large.tif").stat().st_size
    assert 8_500_000 < size < 10_000_000
    with rasterio.open(f"{servers.data}/ranged/large.tif", opener=RasterioOpener(reader)) as raster:
        np.testing.assert_array_equal(raster.read(1, window=WINDOW), window)
        assert TOKEN not in raster.name + repr(raster) + repr(raster.profile)
    seen = servers.requests()["data"]
    assert len(seen) <= 2
    assert sum(request.bytes_requested for request in seen) <= 2_100_000
    assert all(request.is_authenticated for request in seen)


@pytest.mark.parametrize("opener_of", [RasterioOpener])
def test_a_blob_without_ranges_is_requested_once(
    servers: Servers, reader: GitLabStacIO, href: str, window: Any, opener_of: Any
) -> None:
    opener = opener_of(reader)
    for _ in range(2):
        with rasterio.open(href, opener=opener) as raster:
            np.testing.assert_array_equal(raster.read(1, window=WINDOW), window)
    assert len(servers.requests()["hub"]) == 1


def test_a_redirect_gets_no_token(servers: Servers, reader: GitLabStacIO, window: Any) -> None:
    with rasterio.open(f"{servers.data}/away/large.tif", opener=RasterioOpener(reader)) as raster:
        np.testing.assert_array_equal(raster.read(1, window=WINDOW), window)
    seen = servers.requests()
    assert seen["other"]
    assert TOKEN not in repr(seen["other"])
    assert all(request.is_authenticated for request in seen["data"])


def test_an_error_reads_as_what_it_is(servers: Servers, reader: GitLabStacIO, href: str) -> None:
    opener = RasterioOpener(reader)
    with pytest.raises(rasterio.RasterioIOError, match="404 Not Found"):
        rasterio.open(href.replace("large", "nothing"), opener=opener)
    with pytest.raises(rasterio.RasterioIOError, match="401 Unauthorized") as caught:
        rasterio.open(href, opener=RasterioOpener(GitLabStacIO("glpat-no", base_url=servers.hub)))
    assert "glpat-no" not in str(caught.value)


def test_threads_share_an_opener(
    servers: Servers, reader: GitLabStacIO, href: str, window: Any
) -> None:
    opener = RasterioOpener(reader)
    hrefs = [href, f"{servers.data}/ranged/large.tif"] * 8

    def read(one: str) -> Any:
        with rasterio.open(one, opener=opener) as raster:
            return raster.read(1, window=WINDOW)

    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(read, hrefs):
            np.testing.assert_array_equal(found, window)
    assert len(servers.requests()["hub"]) == 1


def test_many_tiles_are_few_ranges(servers: Servers, reader: GitLabStacIO, files: Path) -> None:
    with rasterio.open(f"{servers.data}/ranged/large.tif", opener=RasterioOpener(reader)) as raster:
        whole = raster.read(1)
    with rasterio.open(files / "large.tif") as raster:
        np.testing.assert_array_equal(whole, raster.read(1))
    assert len(servers.requests()["data"]) <= 4


def test_a_pickled_opener_holds_no_token(reader: GitLabStacIO, href: str) -> None:
    opener = RasterioOpener(reader)
    for piece in (opener, opener.patch_url(href)):
        assert TOKEN.encode() not in pickle.dumps(piece)
    patched = pickle.loads(pickle.dumps(opener.patch_url(href)))
    assert patched == href
    # The token of the environment is used in the process that reads.
    with rasterio.open(patched) as raster:
        assert raster.count == 1
    assert opener.patch_url("s3://bucket/a.tif") == "s3://bucket/a.tif"


def test_rioxarray_reads_over_the_opener(reader: GitLabStacIO, href: str, window: Any) -> None:
    raster = rioxarray.open_rasterio(href, opener=RasterioOpener(reader), chunks=(1, 512, 512))
    found = raster[0, 1024:1536, 1024:1536].compute(scheduler="threads")
    np.testing.assert_array_equal(found.values, window)


@pytest.mark.parametrize("chunks", [None, {"x": 512, "y": 512}])
def test_odc_stac_reads_over_the_opener(
    reader: GitLabStacIO, href: str, window: Any, files: Path, chunks: Any
) -> None:
    opener = RasterioOpener(reader)
    item = item_at(href, files / "large.tif")
    loaded = odc.stac.load([item], bands=["image"], chunks=chunks, patch_url=opener.patch_url)
    found = loaded.image[0, 1024:1536, 1024:1536].compute()
    np.testing.assert_array_equal(found.values, window)


# -- GDAL's own HTTP ------------------------------------------------------------------------------


def test_gdal_gets_the_token_in_a_header_file(
    servers: Servers, reader: GitLabStacIO, window: Any
) -> None:
    href = f"{servers.data}/ranged/large.tif"
    with gdal_env(reader, servers.data, trust_redirects=True) as patch_url:
        path = patch_url(href)
        with rasterio.open(path) as raster:
            np.testing.assert_array_equal(raster.read(1, window=WINDOW), window)
            texts = [path, raster.name, repr(raster), *raster.files, *os.environ.values()]
            # What a traceback with local variables would show.
            texts += [repr(cell.cell_contents) for cell in patch_url.__closure__ or ()]
            texts += map(str, rasterio.env.getenv().values()) if rasterio.env.hasenv() else []
        assert patch_url("https://elsewhere.example.org/a.tif").startswith("https://elsewhere")
    assert not [text for text in texts if TOKEN in text and text != TOKEN]
    seen = servers.requests()
    assert all(request.is_authenticated for request in seen["data"])
    with pytest.raises(ConfigurationError, match="has ended"):
        patch_url(href)
    with rasterio.open(path.replace("large", "small")):
        pass
    assert not any(request.is_authenticated for request in servers.requests()["data"])


def test_gdal_gets_no_token_for_a_server_whose_redirects_are_not_trusted(
    servers: Servers, reader: GitLabStacIO, window: Any
) -> None:
    with gdal_env(reader, servers.data) as patch_url:
        with pytest.raises(ConfigurationError, match="RasterioOpener") as caught:
            patch_url(f"{servers.data}/ranged/large.tif")
        assert TOKEN not in str(caught.value)
        with rasterio.open(patch_url(f"{servers.data}/away/large.tif")) as raster:
            np.testing.assert_array_equal(raster.read(1, window=WINDOW), window)
    seen = servers.requests()
    assert seen["other"]
    assert TOKEN not in repr(seen["other"])
    # Only this package asked where the href leads.
    assert len(seen["data"]) == 2


def test_gdal_carries_the_token_to_other_hosts_which_is_why_redirects_need_trust(
    servers: Servers, reader: GitLabStacIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # If this fails, GDAL has learned to keep headers, and `trust_redirects` can go.
    (tmp_path / "headers").write_text(f"X-Gitlab-Token: {TOKEN}")
    options = f"header_file={tmp_path / 'headers'}&use_head=no&empty_dir=yes"
    path = f"/vsicurl?{options}&url={servers.data}/away/small.tif"
    with rasterio.open(path) as raster:
        assert raster.count == 1
    assert TOKEN in repr(servers.requests()["other"])


def test_gdal_env_says_what_it_cannot_read(
    servers: Servers, reader: GitLabStacIO, href: str
) -> None:
    with gdal_env(reader, href, trust_redirects=True) as patch_url:
        with pytest.raises(DownloadError, match="ignores ranges"):
            patch_url(href)
        with pytest.raises(NotFoundError):
            patch_url(href.replace("large", "nothing"))
    with pytest.raises(ConfigurationError), gdal_env(reader, "hub"):
        pass


def test_stackstac_reads_over_gdal(
    servers: Servers, reader: GitLabStacIO, window: Any, files: Path
) -> None:
    item = item_at(f"{servers.data}/ranged/large.tif", files / "large.tif")
    with gdal_env(reader, servers.data, trust_redirects=True) as patch_url:
        item.assets["image"].href = patch_url(item.assets["image"].href)
        stack = stackstac.stack([item], assets=["image"], epsg=32632, resolution=10, rescale=False)
        found = stack[0, 0, 1024:1536, 1024:1536].compute(scheduler="threads")
    np.testing.assert_array_equal(found.values, window)
