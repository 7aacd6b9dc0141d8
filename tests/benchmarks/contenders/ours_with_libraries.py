"""This package under pandas, xarray and rasterio, as their users write it."""

from __future__ import annotations

import os

import pandas as pd
import pystac
import rasterio
import xarray as xr

from stac_gitlab import GitLabStacIO, RasterioOpener

TOKEN = "glpat-benchmark-0123"


def _assets(item_url: str) -> str:
    os.environ["STAC_GITLAB_TOKEN"] = TOKEN
    os.environ["STAC_GITLAB_URL"] = "/".join(item_url.split("/")[:3])
    return f"stacs://{item_url.removeprefix('http://')}/-/asset"


def table(item_url: str) -> int:
    """Read a CSV file of 5.2 MB."""
    return len(pd.read_csv(f"{_assets(item_url)}/table.csv"))


def column(item_url: str) -> int:
    """Read one column of a Parquet file of 50 MB."""
    return len(pd.read_parquet(f"{_assets(item_url)}/table.parquet", columns=["c3"]))


def chunks(item_url: str) -> int:
    """Read all chunks of a Zarr array."""
    return int(xr.open_zarr(f"{_assets(item_url)}/depth.zarr").depth.load().size)


def window(item_url: str) -> int:
    """Read one window of a COG of 9 MB."""
    _assets(item_url)
    with GitLabStacIO(TOKEN, base_url=os.environ["STAC_GITLAB_URL"]) as reader:
        item = pystac.Item.from_file(item_url, stac_io=reader)
        href = item.assets["large.tif"].href
        with rasterio.open(href, opener=RasterioOpener(reader)) as raster:
            return int(raster.read(1, window=((1024, 1536), (1024, 1536))).size)
