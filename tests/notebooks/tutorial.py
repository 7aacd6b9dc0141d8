"""The tutorial of the documentation, executed again: `python tests/notebooks/tutorial.py`.

It runs in the environment of `tests/servers/install.sh`, which `STAC_GITLAB_SERVERS_VENV` names. It
writes the outputs into the notebook, without what differs between two runs.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
# What differs between two runs: a port, times and rates.
_VARIABLE = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:8000"),
    (re.compile(r"\d\d:\d\d(<|&lt;)[\d:?]+, +[\d.?]+[kM]?B/s"), r"00:00\g<1>00:00, 1.00MB/s"),
)


def normalized(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook without what differs between two runs."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("metadata", {}).clear()
            output.pop("transient", None)
    text = json.dumps(notebook)
    for pattern, constant in _VARIABLE:
        text = pattern.sub(constant, text)
    result: dict[str, Any] = json.loads(text)
    return result


def main() -> None:
    """Execute the tutorial and write its outputs."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from notebooks.notebook import execute_notebook  # found by this path

    with tempfile.TemporaryDirectory() as folder:
        notebook = json.loads(TUTORIAL.read_text(encoding="utf-8"))
        executed = normalized(execute_notebook(notebook, folder=Path(folder)))
    text = json.dumps(executed, indent=1, ensure_ascii=False)
    TUTORIAL.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
