"""Reading STAC documents into pystac objects."""
