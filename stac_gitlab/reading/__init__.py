"""STAC made pystac objects."""
