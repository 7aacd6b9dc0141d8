"""Writes the files that the tests read: tables, arrays and rasters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import rasterio
import xarray as xr
from rasterio.transform import from_origin

COLUMNS = [f"c{number}" for number in range(10)]


def write_files(folder: Path) -> None:
    """Write tables of 5.2 MB (CSV) and 50 MB (Parquet), points, arrays, and a raster of 9 MB."""
    rng = np.random.default_rng(1)
    small = pd.DataFrame(rng.random((27_000, 10)), columns=COLUMNS)
    small.to_csv(folder / "table.csv", index=False)
    large = pd.DataFrame(rng.random((620_000, 10)), columns=COLUMNS)
    large.to_parquet(folder / "table.parquet", row_group_size=62_000)
    points = geopandas.points_from_xy([0, 1], [2, 3])
    (folder / "points.geojson").write_text(
        geopandas.GeoDataFrame({"n": [1, 2]}, geometry=points).to_json()
    )
    days = pd.date_range("2023-01-01", periods=100)
    dataset = xr.Dataset(
        {"depth": (("time", "x"), rng.random((100, 500)))},
        {"time": days, "x": np.arange(500.0)},
    )
    dataset.to_netcdf(folder / "depth.nc", engine="h5netcdf")
    dataset.chunk({"time": 1}).to_zarr(folder / "depth.zarr")
    write_cog(folder / "large.tif", rng, 2100)
    write_cog(folder / "small.tif", rng, 300)


def write_cog(path: Path, rng: Any, size: int) -> None:
    options = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_100_000, 10, 10)}
    options |= {"driver": "COG", "dtype": "uint16", "count": 1, "blocksize": 512}
    with rasterio.open(
        path, "w", width=size, height=size, compress="deflate", overviews="none", **options
    ) as raster:
        raster.write(rng.integers(0, 60_000, (1, size, size), dtype="uint16"))


def climate_files(folder: Path) -> dict[str, bytes]:
    """Return the files of the project that the pages read: a table and arrays."""
    stations = pd.DataFrame({"station": range(40), "height": [351 + 60 * n for n in range(40)]})
    stations.to_parquet(folder / "stations.parquet")
    depth = np.add.outer(np.arange(2.0, 22.0), np.arange(40.0))
    snow = xr.Dataset({"depth": (("time", "station"), depth)})
    snow.to_netcdf(folder / "snow.nc", engine="h5netcdf")
    snow.chunk({"time": 10}).to_zarr(folder / "snow.zarr")
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
