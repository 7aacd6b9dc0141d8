"""``env``: what a bug report should say about this machine."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
from pathlib import Path

from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE
from stac_gitlab.cli.options import Commands, common
from stac_gitlab.cli.output import Output
from stac_gitlab.redaction import redact

_PACKAGES = ("stac-gitlab", "pystac", "requests", "urllib3", "tenacity", "orjson", "tqdm")
_VARIABLES = (URL_VARIABLE, "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "env", parents=[common()], help="show versions and settings, for bug reports"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    output = Output(arguments)
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version_of(name) for name in (*_PACKAGES, "pystac-client", "PyYAML")},
        **{name: redact(os.environ[name]) for name in _VARIABLES if os.environ.get(name)},
        **{name: "set" for name in TOKEN_VARIABLES if os.environ.get(name)},
        "netrc": str(Path("~/.netrc").expanduser().exists()).lower(),
    }
    if output.json:
        output.data(found)
    else:
        output.rows(list(found.items()))
    return 0


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
