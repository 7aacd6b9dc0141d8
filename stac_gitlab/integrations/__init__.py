"""What other tools need to use this package: notebooks, fsspec, rasterio and GDAL."""
