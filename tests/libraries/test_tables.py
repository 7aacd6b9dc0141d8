"""Tables: pandas, pyarrow and Dask over the fsspec protocol `stacs`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask.dataframe
import fsspec
import geopandas
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet
from library_files import COLUMNS
from server_process import Servers

TOKEN = "glpat-canary-of-the-libraries"


def test_pandas_reads_a_table_in_few_requests(servers: Servers, files: Path) -> None:
    table = pd.read_csv(f"{servers.ranged_assets}/table.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(files / "table.csv"))
    assert (files / "table.csv").stat().st_size > 5_000_000
    assert len(servers.requests()["data"]) <= 6


def test_pandas_reads_a_table_from_a_server_without_ranges(servers: Servers, files: Path) -> None:
    table = pd.read_csv(f"{servers.assets}/table.csv")
    pd.testing.assert_frame_equal(table, pd.read_csv(files / "table.csv"))
    assert len(servers.requests()["hub"]) == 2


def test_one_column_is_a_fraction_of_the_file(servers: Servers, files: Path) -> None:
    column = pd.read_parquet(f"{servers.ranged_assets}/table.parquet", columns=["c3"])
    assert len(column) == 620_000
    seen = servers.requests()["data"][1:]
    size = (files / "table.parquet").stat().st_size
    assert size > 50_000_000
    assert sum(request.bytes_requested for request in seen) < size / 4


def test_pyarrow_reads_tables_and_datasets(servers: Servers) -> None:
    fs, root = fsspec.url_to_fs(servers.ranged_assets)
    table = pyarrow.parquet.read_table(f"{root}/table.parquet", filesystem=fs, columns=["c1"])
    assert table.num_rows == 620_000
    dataset = pyarrow.dataset.dataset(f"{root}/table.parquet", filesystem=fs)
    assert dataset.count_rows() == 620_000


def test_dask_reads_blocks_and_columns(servers: Servers, files: Path) -> None:
    table = dask.dataframe.read_csv(f"{servers.assets}/*.csv", blocksize=1_000_000)
    assert table.npartitions >= 5
    expected = pd.read_csv(files / "table.csv").sum()
    pd.testing.assert_series_equal(table.sum().compute(scheduler="threads"), expected)
    # The server ignores ranges, and yet all blocks come from one response.
    downloads = [seen for seen in servers.requests()["hub"] if "download" in seen.path]
    assert len(downloads) <= 2
    columns = dask.dataframe.read_parquet(f"{servers.ranged_assets}/table.parquet", columns=["c2"])
    assert len(columns) == 620_000


SCRIPT = """
import json, os, pickle, sys
import dask.dataframe
from distributed import Client, LocalCluster

def environment():
    return os.environ.get("STAC_GITLAB_TOKEN")

if __name__ == "__main__":
    url, hub, token, expected = sys.argv[1:]
    with LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None,
        env={"STAC_GITLAB_TOKEN": token, "STAC_GITLAB_URL": hub},
    ) as cluster, Client(cluster) as client:
        # Dask has to know the columns before there are any workers.
        os.environ.update(STAC_GITLAB_TOKEN=token, STAC_GITLAB_URL=hub)
        table = dask.dataframe.read_csv(url, blocksize=1_000_000)
        graph = table.sum().optimize()
        assert token.encode() not in pickle.dumps(graph)
        del os.environ["STAC_GITLAB_TOKEN"]
        print(json.dumps(table.sum().compute().to_dict()))
"""


def test_two_workers_use_the_token_of_their_environment(
    servers: Servers, files: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    arguments = [f"{servers.assets}/table.csv", servers.hub, TOKEN, ""]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STAC_GITLAB")}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = pd.read_json(done.stdout.splitlines()[-1], typ="series")
    expected = pd.read_csv(files / "table.csv").sum()
    assert list(found.index) == COLUMNS
    pd.testing.assert_series_equal(found, expected, check_exact=False)
    assert TOKEN not in done.stdout + done.stderr


def test_geopandas_reads_vectors_from_an_open_file(servers: Servers) -> None:
    # pyogrio has a GDAL of its own, which rasterio's openers and files in memory do not reach.
    for assets in (servers.assets, servers.ranged_assets):
        with fsspec.open(f"{assets}/points.geojson") as file:
            assert list(geopandas.read_file(file, engine="pyogrio").n) == [1, 2]
