"""Downloads of assets."""
