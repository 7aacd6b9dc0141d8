"""Asset keys and ids made file names inside a folder.

Keys are written by whoever maintains a project, and are often paths. Sub-folders are kept; what
would lead out of the folder, or cannot be a name, is refused.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pystac.utils import safe_urlparse

from stac_gitlab.errors import ConfigurationError, DownloadError, UnsafePathError
from stac_gitlab.files.partial_file import OWN_PREFIX
from stac_gitlab.redaction import _is_deceptive, quoted, redact

# Room is left for what is put around a name while the file is being written.
MAX_NAME_BYTES = 255 - 40
MAX_PATH_BYTES = 4096 - 256
# Folders are made, and names compared, level by level.
MAX_PARTS = 100
_RESERVED_ON_WINDOWS = re.compile(
    r"^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])(?:\s*[.:].*)?$",
    re.IGNORECASE,
)
_FORBIDDEN_ON_WINDOWS = re.compile(r'[<>:"|?*\\]')
_DRIVE = re.compile(r"^[A-Za-z]:")


def relative_path(key: str, *, portable: bool = os.name == "nt") -> str:
    """Return the path of a file below the output folder, with ``/`` between its parts.

    Args:
        key: An asset key or an item id.
        portable: Also refuse what only some systems refuse: names reserved on Windows, characters
            forbidden there, dots and spaces at the end.

    Raises:
        UnsafePathError: If the key cannot be such a path.

    Example:
        >>> from stac_gitlab.files.paths import relative_path
        >>> relative_path("data/train.csv")
        'data/train.csv'
        >>> relative_path("../train.csv")
        Traceback (most recent call last):
            ...
        stac_gitlab.errors.UnsafePathError: '../train.csv' cannot be a file name: it leads out of \
the folder. Download it by hand under a name of your own.
    """
    if not key:
        raise _refused(key, "it is empty")
    if key.startswith(("/", "\\")) or _DRIVE.match(key):
        raise _refused(key, "it is an absolute path")
    if _is_deceptive(key):
        raise _refused(key, "it holds control characters or invisible ones")
    parts = key.split("/")
    if len(parts) > MAX_PARTS:
        raise _refused(key, f"it has more than {MAX_PARTS} parts")
    for part in parts:
        _check_part(key, part, portable=portable)
    if len(key.encode()) > MAX_PATH_BYTES:
        raise _refused(key, f"it is longer than {MAX_PATH_BYTES} bytes")
    return key


def _check_part(key: str, part: str, *, portable: bool) -> None:
    if not part:
        raise _refused(key, "it has an empty part")
    # Backslashes separate on Windows only, but "..\\" means harm wherever it was written.
    if part == "." or ".." in part.split("\\"):
        raise _refused(key, "it leads out of the folder")
    if part.lower().startswith(OWN_PREFIX):
        raise _refused(key, f"names with {OWN_PREFIX!r} are for files in the making")
    if len(part.encode()) > MAX_NAME_BYTES:
        raise _refused(key, f"a part of it is longer than {MAX_NAME_BYTES} bytes")
    if not portable:
        return
    if _RESERVED_ON_WINDOWS.match(part):
        raise _refused(key, f"{part!r} is a device on Windows")
    if _FORBIDDEN_ON_WINDOWS.search(part):
        raise _refused(key, f"{part!r} holds a character that Windows forbids")
    if part != part.rstrip(". "):
        raise _refused(key, "Windows drops dots and spaces at the end of a name")


def _refused(key: str, why: str) -> UnsafePathError:
    return UnsafePathError(
        f"{quoted(key)} cannot be a file name: {why}. Download it by hand under a name of your own."
    )


def contained_path(folder: Path, relative: str) -> Path:
    """Return the path of a file below `folder`, whose own folder exists and lies inside.

    Raises:
        UnsafePathError: If a link inside the folder leads out of it, or something that is not a
            folder stands in the way.
    """
    target = folder.joinpath(*relative.split("/"))
    if _is_straight(folder, relative):
        return target
    # Before the folder is made, because making it would follow a link too; and after, because
    # somebody may have put a link there in the meantime.
    _check_inside(folder, target.parent, relative)
    if target.parent.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UnsafePathError(
            f"{quoted(relative)}: a file stands where the folder {str(target.parent)!r} has to be."
        ) from None
    _check_inside(folder, target.parent, relative)
    return target


def _is_straight(folder: Path, relative: str) -> bool:
    """Tell, quickly, whether all folders of a path are there already and none is a link."""
    place = os.fspath(folder)
    *folders, _ = relative.split("/")
    # A folder of Windows may be a junction; one without folders in it may not be there.
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
    home, led_to = os.path.realpath(folder), os.path.realpath(parent)
    if led_to != home and not led_to.startswith(os.path.join(home, "")):
        raise UnsafePathError(
            f"{quoted(relative)}: a link in {str(folder)!r} leads to {led_to!r}, outside of it. "
            "Nothing is written there."
        )


@dataclass(frozen=True)
class FileNaming:
    """Which names are one and the same on a file system.

    Attributes:
        ignores_case: Whether ``A`` and ``a`` are one file.
        normalizes: Whether a letter and its composed form are one file.
    """

    ignores_case: bool
    normalizes: bool

    @classmethod
    def of(cls, folder: Path) -> FileNaming:
        """Find out by trying in `folder`, which exists.

        Raises:
            DownloadError: If nothing can be written there.
        """
        try:
            handle, name = tempfile.mkstemp(dir=folder, prefix=f"{OWN_PREFIX}-Probe-\u00e9-")
        except UnicodeError:
            # Names here are ASCII only, by order of the environment.
            return cls.usual()
        except OSError as error:
            raise DownloadError(
                f"Nothing can be written to the folder {str(folder)!r}: {error.strerror or error}. "
                "Check its permissions and the free space, or choose another."
            ) from error
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
        """Return what is usual on this system, where there is no folder to try it in."""
        tolerant = sys.platform in ("win32", "darwin")
        return cls(ignores_case=tolerant, normalizes=sys.platform == "darwin")

    @classmethod
    def strictest(cls) -> FileNaming:
        """Return the naming under which everything collides that collides on any common system."""
        return cls(ignores_case=True, normalizes=True)

    def identity(self, relative: str) -> str:
        """Return what two names have in common exactly if they are one file."""
        if self.ignores_case:
            relative = unicodedata.normalize("NFD", relative).casefold()
        if self.normalizes or self.ignores_case:
            relative = unicodedata.normalize("NFC", relative)
        return relative


class NameClashError(DownloadError):
    """Assets would share a file, or one would be the folder of another.

    Attributes:
        names: What they are called in the message.
    """

    def __init__(self, message: str, *, names: Iterable[str]) -> None:
        super().__init__(message)
        self.names = frozenset(names)


class TakenNames:
    """The paths that are spoken for in one folder.

    Args:
        naming: Which names are the same there.
    """

    def __init__(self, naming: FileNaming) -> None:
        self._naming = naming
        # By the hashes of the paths: those of all folders above deep ones would fill the memory.
        self._files: dict[int, str] = {}
        self._folders: dict[int, str] = {}

    def take(self, paths: Mapping[str, str]) -> None:
        """Take a path for each name, or none of them.

        Args:
            paths: The relative path of each asset, by what to call it in messages.

        Raises:
            NameClashError: If two of them, or one and a path taken before, are the same file, or
                one is a folder that another needs; the message names them.
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
            for folder in map(hash, _folders(identity)):
                other = files.get(folder) or self._files.get(folder)
                if other is not None:
                    clashes.append((other, name))
                folders.setdefault(folder, name)
        if clashes:
            pairs = "; ".join(f"{quoted(a)} and {quoted(b)}" for a, b in clashes)
            raise NameClashError(
                f"These would be the same file, or one the folder of the other: {pairs}. Download "
                "them one at a time into different folders, with include= or a template=.",
                names={name for clash in clashes for name in clash},
            )
        self._files.update(files)
        self._folders.update(folders)


def _folders(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:n]) for n in range(1, len(parts)))


def is_local(href: str) -> bool:
    """Tell whether `href` is a local path or a ``file://`` URL."""
    try:
        return is_local_path(href)
    except ValueError as error:
        raise ConfigurationError(f"{redact(href)}: not a URL ({error}).") from None


def _path_of(href: str) -> str:
    """Return the path of a local href, as pystac takes it, unless a # or ? was meant literally.

    pystac cuts a path there, and follows links cut like that. So must what it is to find again;
    only what stands in a folder, or is a file, with such a name was certainly meant.
    """
    parts = safe_urlparse(href)
    if parts.scheme == "file" or parts.path == href:
        return parts.path
    meant = os.path.exists(href) or os.path.isdir(os.path.dirname(href))
    return href if meant else parts.path


def read_local(href: str) -> bytes:
    """Return the content of the file that a local href names."""
    path = _path_of(href)
    try:
        with open(path, "rb") as file:
            return file.read()
    except ValueError as error:
        raise ConfigurationError(f"{path!a}: no file can have such a name ({error}).") from None


# A drive, or a scheme with a single slash, which pystac takes for one; and GDAL's file systems.
_DRIVE_OR_VSI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[/\\]|/vsi")


def is_local_path(href: str) -> bool:
    """Tell whether an href means a path, relative or absolute, or a ``file:`` URL.

    Raises:
        ValueError: If it is nothing at all.
    """
    return safe_urlparse(href).scheme in ("", "file")


def is_web(href: object) -> bool:
    """Tell, quickly, whether an href is written as nearly all are. Others may be web URLs, too."""
    return isinstance(href, str) and href.startswith(("http://", "https://"))
