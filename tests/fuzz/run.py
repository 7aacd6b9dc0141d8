"""Fuzz one target with atheris until something is found: ``python tests/fuzz/run.py hrefs``.

What follows the name goes to libFuzzer: ``-max_total_time=600`` seconds, for instance, or a folder
with inputs to begin with.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["stac_gitlab", "targets"]):
    from targets import TARGETS


def main() -> None:
    """Run the target that the command line names."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"Name a target: {', '.join(TARGETS)}.")
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
