"""Local hrefs, and asset keys and ids as file names inside a folder.

Keys are written by the maintainer of a project and are often paths. Their sub-folders are kept; a
key that leads out of the folder, or cannot be a file name, is refused.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import url2pathname

from pystac.utils import safe_urlparse

from stac_gitlab.errors import ConfigurationError, DownloadError, UnsafePathError
from stac_gitlab.files.partial_file import OWN_PREFIX
from stac_gitlab.redaction import has_invisible, quoted, redact

MAX_NAME_BYTES = 255
# The rest is for the path of the output folder, and for the name of a partial file.
MAX_PATH_BYTES = 4096 - 256
# Folders are created, and names compared, level by level.
MAX_PARTS = 100
_RESERVED_ON_WINDOWS = re.compile(
    r"^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:\s*[.:].*)?$",
    re.IGNORECASE,
)
_FORBIDDEN_ON_WINDOWS = re.compile(r'[<>:"|?*\\]')
_DRIVE = re.compile(r"^[A-Za-z]:")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://(?=[^/])")


def relative_path(key: str, *, portable: bool = os.name == "nt") -> str:
    """Return the path of a file below the output folder, with ``/`` between its parts.

    A key that looks like a URL, such as ``python://a.py``, keeps its scheme as part of the name.

    Args:
        key: An asset key or an item id.
        portable: Whether to refuse what Windows refuses: drive letters, reserved names, forbidden
            characters, dots and spaces at the end.

    Raises:
        UnsafePathError: If the key cannot be such a path.

    Example:
        >>> from stac_gitlab.files.paths import relative_path
        >>> relative_path("data/train.csv")
        'data/train.csv'
        >>> relative_path("python://a.py")
        'python%3A%2F%2Fa.py'
        >>> relative_path("../train.csv")
        Traceback (most recent call last):
            ...
        stac_gitlab.errors.UnsafePathError: '../train.csv' cannot be a file name: it leads out of \
the folder. Download it by hand under a name of your own.
    """
    if not key:
        raise _refused(key, "it is empty")
    if key.startswith(("/", "\\")):
        raise _refused(key, "it is an absolute path")
    if _DRIVE.match(key) and key[2:3] in ("/", "\\"):
        raise _refused(key, "it is an absolute path on Windows")
    if portable and _DRIVE.match(key):
        raise _refused(key, "it begins with a drive letter of Windows")
    if has_invisible(key):
        raise _refused(key, "it contains control characters or invisible ones")
    path = _SCHEME.sub(r"\1%3A%2F%2F", key)
    parts = path.split("/")
    if len(parts) > MAX_PARTS:
        raise _refused(key, f"it has more than {MAX_PARTS} parts")
    for part in parts:
        _check_part(key, part, portable=portable)
    if len(path.encode()) > MAX_PATH_BYTES:
        raise _refused(key, f"it is longer than {MAX_PATH_BYTES} bytes")
    if (problem := unwritable_characters(path)) is not None:
        raise _refused(key, problem)
    return path


def unwritable_characters(path: str | os.PathLike[str]) -> str | None:
    """Return what to say of a path with characters that this Python cannot write."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        return f"this Python writes names in {encoding} only, unless PYTHONUTF8=1 is set"
    return None


def _check_part(key: str, part: str, *, portable: bool) -> None:
    if not part:
        raise _refused(key, "it has an empty part")
    # Backslashes separate on Windows only, but "..\\" is never written in good faith.
    if ".." in part.split("\\"):
        raise _refused(key, "it leads out of the folder")
    if part == ".":
        raise _refused(key, "'.' is no name: it stands for the folder itself")
    if part.lower().startswith(OWN_PREFIX):
        raise _refused(key, f"names that begin with {OWN_PREFIX!r} are reserved for partial files")
    if len(part.encode()) > MAX_NAME_BYTES:
        raise _refused(key, f"a part of it is longer than {MAX_NAME_BYTES} bytes")
    if not portable:
        return
    if _RESERVED_ON_WINDOWS.match(part):
        raise _refused(key, f"{part!r} is a device on Windows")
    if _FORBIDDEN_ON_WINDOWS.search(part):
        raise _refused(key, f"{part!r} contains a character that Windows forbids")
    if part != part.rstrip(". "):
        raise _refused(key, "Windows drops dots and spaces at the end of a name")


def _refused(key: str, why: str) -> UnsafePathError:
    return UnsafePathError(
        f"{quoted(key)} cannot be a file name: {why}. Download it by hand under a name of your own."
    )


NOT_LINKABLE = re.compile(r"[?#\\\x00-\x1f\x7f]")
"""Characters of a path that no link leads to: pystac cuts hrefs at ? and #, and makes slashes of
backslashes."""


def linkable_path(name: str) -> str:
    """Return an id as a path that pystac can link to: other names get a hash, to stay distinct."""
    return "/".join(map(_linkable_part, name.split("/")))


def _linkable_part(part: str) -> str:
    safe = NOT_LINKABLE.sub("_", part)
    safe = safe.strip() if safe.strip(". ") else "_"
    encoded = safe.encode(errors="replace")
    if len(encoded) > MAX_NAME_BYTES - 40:
        safe = encoded[: MAX_NAME_BYTES - 60].decode(errors="ignore")
    if safe == part:
        return part
    return f"{safe}-{hashlib.sha256(part.encode(errors='replace')).hexdigest()[:12]}"


def contained_path(folder: Path, relative: str) -> Path:
    """Return the path of a file below `folder`; create the folders between the two.

    Raises:
        UnsafePathError: If a link inside the folder leads out of it, or a file has the name of one
            of the folders.
    """
    target = folder.joinpath(*relative.split("/"))
    if _has_plain_folders(folder, relative):
        return target
    # Checked before the folder is created, which would follow a link, and again afterwards: a link
    # may have been put there in the meantime.
    _check_inside(folder, target.parent, relative)
    if target.parent.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UnsafePathError(
            f"{quoted(relative)}: the folder {str(target.parent)!r} cannot be created, because a "
            "file has its name."
        ) from None
    _check_inside(folder, target.parent, relative)
    return target


def _has_plain_folders(folder: Path, relative: str) -> bool:
    """Return quickly whether all folders of a path exist and none is a link."""
    place = os.fspath(folder)
    *folders, _ = relative.split("/")
    # On Windows, a folder may be a junction.
    if os.name == "nt" or not (folders or os.path.isdir(place)):
        return False
    for name in folders:
        place = os.path.join(place, name)
        try:
            if not stat.S_ISDIR(os.lstat(place).st_mode):
                return False
        except OSError:
            return False
    return True


def _check_inside(folder: Path, parent: Path, relative: str) -> None:
    root, real_parent = os.path.realpath(folder), os.path.realpath(parent)
    if real_parent != root and not real_parent.startswith(os.path.join(root, "")):
        raise UnsafePathError(
            f"{quoted(relative)}: a link in {str(folder)!r} leads to {real_parent!r}, outside of "
            "it. Nothing is written there."
        )


@dataclass(frozen=True)
class FileNaming:
    """The names that a file system takes for the same.

    Attributes:
        ignores_case: Whether ``A`` and ``a`` are the same file.
        normalizes: Whether the composed and the decomposed form of a letter are the same file.
    """

    ignores_case: bool
    normalizes: bool

    @classmethod
    def of(cls, folder: Path) -> FileNaming:
        """Return the naming in a folder: create a file there, or raise the OSError of that."""
        try:
            handle, name = tempfile.mkstemp(dir=folder, prefix=f"{OWN_PREFIX}-Probe-\u00e9-")
        except UnicodeError:
            # The environment allows ASCII names only.
            return cls.usual()
        os.close(handle)
        try:
            head, tail = os.path.split(name)
            return cls(
                ignores_case=os.path.exists(os.path.join(head, tail.swapcase())),
                normalizes=os.path.exists(os.path.join(head, unicodedata.normalize("NFD", tail))),
            )
        finally:
            os.unlink(name)

    @classmethod
    def usual(cls) -> FileNaming:
        """Return the usual naming of this system, for a folder that does not exist yet."""
        tolerant = sys.platform in ("win32", "darwin")
        return cls(ignores_case=tolerant, normalizes=sys.platform == "darwin")

    def identity(self, relative: str) -> str:
        """Return a text that is the same for all names of the same file."""
        if self.ignores_case:
            relative = unicodedata.normalize("NFD", relative).casefold()
        if self.normalizes or self.ignores_case:
            relative = unicodedata.normalize("NFC", relative)
        return relative


STRICTEST_NAMING = FileNaming(ignores_case=True, normalizes=True)
"""The naming under which all names collide that do so on any common system."""


class NameClashError(DownloadError):
    """Assets have the same file name, or one has the name of another's folder.

    Attributes:
        names: Their names in the message.
    """

    def __init__(self, message: str, *, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = frozenset(names)


class TakenNames:
    """The paths that are in use in one folder, and the names that are the same there."""

    def __init__(self, naming: FileNaming) -> None:
        self._naming = naming
        # The paths are kept as hashes: those of all folders of deep paths would fill the memory.
        self._files: dict[int, str] = {}
        self._folders: dict[int, str] = {}

    def take(self, paths: Mapping[str, str]) -> None:
        """Take a path for each name, or none of them.

        Args:
            paths: The relative path of each asset, by its name in messages.

        Raises:
            NameClashError: If one of them is the same file as another or as a path taken before,
                or has the name of a folder of one. The message names them.
        """
        files: dict[int, str] = {}
        folders: dict[int, str] = {}
        clashes: list[tuple[str, str]] = []
        for name, path in paths.items():
            identity = self._naming.identity(path)
            file = hash(identity)
            other = files.get(file) or self._files.get(file)
            other = other or folders.get(file) or self._folders.get(file)
            if other is not None:
                clashes.append((other, name))
            files.setdefault(file, name)
            parts = identity.split("/")
            for folder in (hash("/".join(parts[:n])) for n in range(1, len(parts))):
                other = files.get(folder) or self._files.get(folder)
                if other is not None:
                    clashes.append((other, name))
                folders.setdefault(folder, name)
        if clashes:
            pairs = "; ".join(f"{quoted(a)} and {quoted(b)}" for a, b in clashes)
            raise NameClashError(
                f"These would be the same file, or one would be the folder of the other: {pairs}. "
                "Download them one at a time into different folders, with include= or a template=.",
                names={name for clash in clashes for name in clash},
            )
        self._files.update(files)
        self._folders.update(folders)


def is_local(href: str) -> bool:
    """Return whether an href is a path, relative or absolute, or a ``file:`` URL.

    The file system is not accessed: the href may be a stranger's.

    Raises:
        ConfigurationError: If it is not a URL.
    """
    try:
        return not is_web(href) and safe_urlparse(href).scheme in ("", "file")
    except ValueError as error:
        raise ConfigurationError(f"{redact(href)}: not a URL ({error}).") from None


def local_path(href: str) -> str:
    """Return the path that a local href names.

    Like pystac, it takes a ``file:`` URL literally, and ends a path at a # or ?. It takes them as
    part of a name if there is such a file, or its folder. Escapes of a ``file:`` URL are decoded if
    only that names a file.

    Raises:
        ConfigurationError: If it is a file of another machine.
    """
    parts = safe_urlparse(href)
    if parts.scheme == "file":
        # On Windows, the machine of a shared folder.
        if parts.netloc not in ("", "localhost") and os.name != "nt":
            raise ConfigurationError(
                f"{quoted(href)} is a file of another machine ({quoted(parts.netloc)}). Copy it to "
                "this one. A file of this machine has three slashes: file:///path."
            )
        decoded = url2pathname(parts.path)
        is_escaped = os.path.exists(decoded) and not os.path.exists(parts.path)
        return decoded if is_escaped else parts.path
    is_literal = os.path.exists(href) or os.path.isdir(os.path.dirname(href))
    return href if is_literal else parts.path


def read_local(href: str) -> bytes:
    """Return the content of the file that a local href names."""
    path = local_path(href)
    try:
        with open(path, "rb") as file:
            return file.read()
    except ValueError as error:
        raise ConfigurationError(f"{path!a}: no file can have such a name ({error}).") from None


# A drive, or a scheme with a single slash, which pystac takes for one; and GDAL's file systems.
DRIVE_OR_VSI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\]|/vsi")


def is_web(href: object) -> bool:
    """Return whether an href is written like nearly all URLs. Others may be web URLs, too."""
    return isinstance(href, str) and href.startswith(("http://", "https://"))
