"""The ``stac-gitlab`` command."""

from stac_gitlab.cli.command import main

__all__ = ["main"]
