"""Reading STAC documents into pystac objects."""

from stac_gitlab.reading import pystac_hooks

# Whichever module is imported first: no object may be read without the hooks.
pystac_hooks.install()
