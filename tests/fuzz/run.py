"""Fuzz one target with atheris until something is found: ``python tests/fuzz/run.py hrefs``.

What follows the name goes to libFuzzer: ``-max_total_time=600`` seconds, for instance, or a folder
in which what is worth keeping is kept. It begins with the seeds and the words of ``targets``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["stac_gitlab", "targets", "urllib.parse", "pystac"]):
    from targets import PIECES, SEEDS, TARGETS


def main() -> None:
    """Run the target that the command line names."""
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"Name a target: {', '.join(TARGETS)}.")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    words = ("".join(f"\\x{byte:02x}" for byte in piece) for piece in PIECES)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in words))
    (folder / "seeds").mkdir()
    for number, seed in enumerate(SEEDS):
        (folder / "seeds" / str(number)).write_bytes(seed)
    # The first folder is the one that is written to.
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    (folder / "found").mkdir()
    folders = [*folders, str(folder / "found"), str(folder / "seeds")]
    atheris.Setup([sys.argv[0], f"-dict={folder / 'words'}", *options, *folders], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
