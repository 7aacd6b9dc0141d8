"""``env``: what a bug report should say about this machine."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from stac_gitlab.auth import TOKEN_VARIABLES, URL_VARIABLE
from stac_gitlab.auth.token_store import store_path
from stac_gitlab.cli.output import Output
from stac_gitlab.redaction import REDACTED, redact

_PACKAGES = ("stac-gitlab", "pystac", "requests", "urllib3", "tenacity", "orjson", "tqdm")
_EXTRAS = ("pystac-client", "PyYAML", "keyring", "distributed")
_VARIABLES = (
    URL_VARIABLE,
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "NO_COLOR",
)


def show_environment(_arguments: argparse.Namespace, output: Output) -> int:
    """Print versions and settings, without secrets."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "encoding": sys.getfilesystemencoding(),
        **{name: _version_of(name) for name in (*_PACKAGES, *_EXTRAS)},
        **{name: _shown(os.environ[name]) for name in _VARIABLES if os.environ.get(name)},
        **{name: "set" for name in TOKEN_VARIABLES if os.environ.get(name)},
        "stored tokens": str(store_path()) if store_path().exists() else "none",
        "netrc": str(Path("~/.netrc").expanduser().exists()).lower(),
    }
    output.table(found)
    return 0


def _shown(value: str) -> str:
    """Return a setting without secrets. The address of a proxy may have a login and no scheme."""
    login, at, host = value.rpartition("@")
    return f"{REDACTED}@{host}" if at and "://" not in login else redact(value)


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
