"""Arrays: xarray and Zarr over the fsspec protocol `stacs`."""

from __future__ import annotations

import pickle
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from server_process import Servers

from stac_gitlab import GitLabStacIO

TOKEN = "glpat-canary-of-the-libraries"


@pytest.fixture
def depth(files: Path) -> np.ndarray:
    with xr.open_dataset(files / "depth.nc", engine="h5netcdf") as dataset:
        return dataset.depth.values


@pytest.mark.parametrize("kind", ["assets", "ranged_assets"])
def test_xarray_reads_netcdf(servers: Servers, depth: np.ndarray, kind: str) -> None:
    with xr.open_dataset(f"{getattr(servers, kind)}/depth.nc", engine="h5netcdf") as dataset:
        np.testing.assert_array_equal(dataset.depth.values, depth)
    assert sum(len(seen) for seen in servers.requests().values()) <= 3


def test_an_open_dataset_travels_without_the_token(servers: Servers, depth: np.ndarray) -> None:
    reader = GitLabStacIO(TOKEN, base_url=servers.hub)
    url = f"{servers.assets}/depth.nc"
    with xr.open_dataset(url, engine="h5netcdf", storage_options={"reader": reader}) as dataset:
        pickled = pickle.dumps(dataset)
    assert TOKEN.encode() not in pickled
    np.testing.assert_array_equal(pickle.loads(pickled).depth.values, depth)


def test_xarray_reads_a_zarr_folder_of_assets(servers: Servers, depth: np.ndarray) -> None:
    dataset = xr.open_zarr(f"{servers.assets}/depth.zarr")
    np.testing.assert_array_equal(dataset.depth.values, depth)
    seen = servers.requests()["hub"]
    assert len([s for s in seen if "/items/" in s.path]) <= 2
    assert len([s for s in seen if "/c/" in s.path and "/depth/" in s.path]) == 100
    assert len(seen) <= 115


def test_xarray_takes_a_mapper_and_a_reader(servers: Servers, depth: np.ndarray) -> None:
    mapper = fsspec.get_mapper(f"{servers.assets}/depth.zarr")
    np.testing.assert_array_equal(xr.open_zarr(mapper).depth.values, depth)
    options = {"reader": GitLabStacIO(TOKEN, base_url=servers.hub)}
    dataset = xr.open_zarr(f"{servers.assets}/depth.zarr", storage_options=options)
    np.testing.assert_array_equal(dataset.depth.values, depth)


def test_zarr_reads_a_folder_of_assets(servers: Servers, depth: np.ndarray) -> None:
    group = zarr.open_group(f"{servers.assets}/depth.zarr", mode="r")
    np.testing.assert_array_equal(group["depth"][:], depth)
    assert {name for name, _ in group.arrays()} == {"depth", "time", "x"}
    with pytest.raises((KeyError, FileNotFoundError)):
        zarr.open_group(f"{servers.assets}/none.zarr", mode="r")
