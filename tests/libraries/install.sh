#!/usr/bin/env bash
# Installs the libraries that read assets through this package, in the versions that are tested,
# into a virtual environment, with this package and its tests.
#
#     tests/libraries/install.sh FOLDER
#     STAC_GITLAB_LIBRARIES_VENV=FOLDER python -m pytest -m slow tests/test_libraries.py
set -euo pipefail
venv=${1:?"usage: $0 FOLDER (of the virtual environment to create)"}
top=$(cd "$(dirname "$0")/../.." && pwd)

python3 -m venv "$venv"
install=("$venv/bin/pip" install -q --disable-pip-version-check)
if command -v uv > /dev/null; then
    # It needs a quarter of the time.
    install=(uv pip install -q --python "$venv/bin/python")
fi
"${install[@]}" -e "$top[test,fsspec,rasters]" \
    'dask[dataframe,distributed]==2026.8.0' 'fsspec==2026.9.0' 'geopandas==1.2.0' \
    'h5netcdf==1.8.2' 'h5py==3.16.0' 'odc-stac==0.5.3' 'pandas==2.3.3' 'pyarrow==26.0.1' 'pyogrio==0.13.0' \
    'rasterio==1.4.4' 'rioxarray==0.19.0' 'stackstac==0.5.1' 'xarray==2026.9.0' 'zarr==3.1.6'
