"""Tokens that a person has stored, each for one server.

They are in the keyring of the system, if the package ``keyring`` is installed and has a safe one,
and otherwise in a file that only its owner can read. Each function raises a `ConfigurationError` if
that file cannot be used.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from stac_gitlab.auth.origins import Origin
from stac_gitlab.errors import ConfigurationError
from stac_gitlab.files.partial_file import PartialFile, leftovers_for, leftovers_in, open_own

_SERVICE = "stac-gitlab"
_IN_KEYRING = ""


def store_path() -> Path:
    """Return the file of the store. With a keyring it holds the names of the servers only."""
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "stac-gitlab" / "tokens.json"


def stored_servers() -> list[str]:
    """Return the servers for which a token is stored."""
    return list(_read())


def stored_token(server: str) -> str | None:
    """Return the token for a server, or None."""
    token = _read().get(server)
    if token != _IN_KEYRING:
        return token
    keyring = _keyring()
    found = None if keyring is None else keyring.get_password(_SERVICE, server)
    return None if found is None else str(found)


def store_token(server: str, token: str) -> str:
    """Store the token for a server; return where, in words."""
    keyring = _keyring()
    if keyring is not None:
        keyring.set_password(_SERVICE, server, token)
    _write({**_read(), server: token if keyring is None else _IN_KEYRING})
    return str(store_path()) if keyring is None else "the keyring of the system"


def forget_token(server: str) -> bool:
    """Remove the token for a server; return whether there was one."""
    known = _read()
    if server not in known:
        return False
    keyring = _keyring()
    if known.pop(server) == _IN_KEYRING and keyring is not None:
        with suppress(keyring.errors.PasswordDeleteError):
            keyring.delete_password(_SERVICE, server)
    _write(known)
    return True


def _keyring() -> Any:
    """Return the module keyring, if it is installed and has a keyring to use."""
    try:
        import keyring  # noqa: PLC0415  # optional
        import keyring.errors  # noqa: PLC0415
    except ImportError:
        return None
    return keyring if keyring.get_keyring().priority >= 1 else None


def _read() -> dict[str, str]:
    path = store_path()
    try:
        with open_own(os.path.realpath(path)) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(1024 * 1024)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {error.strerror}.") from None
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(
            f"{str(path)!r} holds tokens, and others can read it. Run: chmod 600 '{path}'"
        )
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise ConfigurationError(f"{str(path)!r} holds no tokens. Remove it, and log in again.")
    return {server: token for server, token in found.items() if Origin.of(server) is not None}


def _write(tokens: dict[str, str]) -> None:
    path = store_path()
    # A link is written through, as for other files.
    target = os.path.realpath(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in leftovers_for(target, leftovers_in(os.path.dirname(target))):
            # A process that was killed has left tokens in it.
            leftover.remove()
        with PartialFile(target) as file:
            os.chmod(file.open_path(), 0o600)
            file.write(json.dumps(tokens, indent=2).encode())
            file.finish()
    except OSError as error:
        raise ConfigurationError(f"{str(path)!r} cannot be written: {error.strerror}.") from None
