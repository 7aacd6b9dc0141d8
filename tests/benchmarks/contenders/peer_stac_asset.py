"""stac-asset, through its blocking interface and with its defaults."""

from __future__ import annotations

import pystac
import stac_asset.blocking


def download(item_url: str, folder: str) -> int:
    """Bring home all assets of an item."""
    item = pystac.Item.from_file(item_url)
    return len(stac_asset.blocking.download_item(item, folder).assets)
