"""Where a mirror keeps its objects: file names for ids.

An item is ``{name}.json``, and its assets are in the folder ``{name}``. A catalog is in the folder
``{name}``, with all that it lists. Names consist of characters that need no escape in a URL and are
valid on every system, so a relative href leads to the file over HTTP as well.
"""

from __future__ import annotations

import hashlib
import re

# A dot at the end is dropped on Windows, one at the beginning hides a file, and with ".json" the
# folder of an item would have the name of the file of another one.
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]|\A\.|\.\Z|\.(?=json\Z)", re.IGNORECASE | re.ASCII)
# Files of the mirror itself, and devices on Windows, whatever their suffix.
_RESERVED = re.compile(
    r"(?:catalog|collection)\Z|(?:con|prn|aux|nul|(?:com|lpt)[0-9])(?:\.|\Z)", re.IGNORECASE
)
_ESCAPED = re.compile(rb"~([0-9A-F]{2})")
_HASH = re.compile(r"~-[0-9a-f]{12}\Z")
_EMPTY = "~"
# A file name has up to 255 bytes, a suffix and a hash included.
_MAX_NAME = 200


def name_of(object_id: str) -> str:
    """Return the name of the file or folder of an object. :func:`id_of` returns the id.

    Bytes other than ASCII letters, digits and ``.-_`` are written as ``~XX``. A name that is too
    long is cut, with a hash at its end.

    Example:
        >>> from stac_gitlab.catalogs.mirror_layout import id_of, name_of
        >>> name_of("alpine/lakes")
        'alpine~2Flakes'
        >>> id_of("alpine~2Flakes")
        'alpine/lakes'
    """
    name = _NOT_PLAIN.sub(lambda match: _escaped(match[0]), object_id)
    if _RESERVED.match(name):
        name = _escaped(name[0]) + name[1:]
    if len(name) > _MAX_NAME:
        return with_hash(name[:_MAX_NAME], object_id)
    return name or _EMPTY


def with_hash(name: str, key: str) -> str:
    """Return a longer name for an object whose own name is too long or taken."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{name}~-{digest}"


def id_of(name: str) -> str:
    """Return the id that a name stands for, if it was not too long."""
    if name == _EMPTY:
        return ""
    encoded = _HASH.sub("", name).encode("ascii")
    decoded = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), encoded)
    return decoded.decode("utf-8", "replace")


def _escaped(text: str) -> str:
    return "".join(f"~{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))
