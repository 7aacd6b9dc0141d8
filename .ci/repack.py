"""Repack source distributions so that the same sources give the same bytes.

setuptools records the build time and the user in the archive. This script removes the user and sets
every time to SOURCE_DATE_EPOCH.
"""

import gzip
import io
import os
import sys
import tarfile


def repack(path: str, *, seconds: int) -> None:
    """Replace the archive at `path`; every time in it becomes `seconds` since 1970."""
    with tarfile.open(path) as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name)
        contents = [(member, archive.extractfile(member)) for member in members]
        files = [(member, b"" if file is None else file.read()) for member, file in contents]
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=seconds) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as repacked,
    ):
        for member, content in files:
            entry = tarfile.TarInfo(member.name)
            entry.type, entry.size, entry.mtime = member.type, len(content), seconds
            entry.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            repacked.addfile(entry, io.BytesIO(content))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        repack(name, seconds=int(os.environ["SOURCE_DATE_EPOCH"]))
