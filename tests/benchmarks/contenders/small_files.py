"""The limit: how long a file system takes to create many small files."""

from __future__ import annotations

import os


def create(folder: str, count: str, size: str) -> int:
    """Create files in one folder, with the fewest system calls."""
    content = bytes(int(size))
    for number in range(int(count)):
        path = os.path.join(folder, f"{number:07}.json")
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        os.write(handle, content)
        os.close(handle)
    return int(count)
