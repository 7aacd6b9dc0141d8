"""``env``: what a bug report should say about this machine."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from pathlib import Path

from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE
from stac_gitlab.cli.options import Commands, add_command
from stac_gitlab.cli.output import Output
from stac_gitlab.redaction import redact

_PACKAGES = ("stac-gitlab", "pystac", "requests", "urllib3", "tenacity", "orjson", "tqdm")
_VARIABLES = (URL_VARIABLE, "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    add_command(commands, "env", _run, "show versions and settings, for bug reports")


def _run(_arguments: argparse.Namespace, output: Output) -> int:
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version_of(name) for name in (*_PACKAGES, "pystac-client", "PyYAML")},
        **{name: redact(os.environ[name]) for name in _VARIABLES if os.environ.get(name)},
        **{name: "set" for name in TOKEN_VARIABLES if os.environ.get(name)},
        "netrc": str(Path("~/.netrc").expanduser().exists()).lower(),
    }
    output.table(found)
    return 0


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
