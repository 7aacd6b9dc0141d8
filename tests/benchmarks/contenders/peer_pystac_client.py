"""pystac-client, which pages through an API."""

from __future__ import annotations

import pystac_client


def objects(landing_url: str) -> int:
    """Walk through the items of the one collection."""
    collection = pystac_client.Client.open(landing_url).get_collection("points")
    assert collection is not None
    return sum(1 for _ in collection.get_items())
