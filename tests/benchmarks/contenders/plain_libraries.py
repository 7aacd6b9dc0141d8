"""pandas, xarray and rasterio on a public server, without this package and without an item."""

from __future__ import annotations

import io

import pandas as pd
import rasterio
import requests
import xarray as xr


def table(home: str) -> int:
    """Read a CSV file of 5.2 MB over fsspec's own HTTP."""
    return len(pd.read_csv(f"{home}/table.csv"))


def column(home: str) -> int:
    """Read one column of a Parquet file of 50 MB over fsspec's own HTTP."""
    return len(pd.read_parquet(f"{home}/table.parquet", columns=["c3"], engine="pyarrow"))


def whole_column(home: str) -> int:
    """Read one column of a Parquet file of 50 MB, all of which is requested before."""
    response = requests.get(f"{home}/table.parquet")
    return len(pd.read_parquet(io.BytesIO(response.content), columns=["c3"]))


def chunks(home: str) -> int:
    """Read all chunks of a Zarr array over fsspec's own HTTP."""
    return int(xr.open_zarr(f"{home}/depth.zarr").depth.load().size)


def window(home: str) -> int:
    """Read one window of a COG of 9 MB over GDAL's own HTTP."""
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
    with rasterio.Env(**options), rasterio.open(f"{home}/large.tif") as raster:
        return int(raster.read(1, window=((1024, 1536), (1024, 1536))).size)
