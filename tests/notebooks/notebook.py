"""Real notebooks: cells that are executed by a kernel, and their outputs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_servers import program

import stac_gitlab

EXECUTE = Path(__file__).parent / "execute.py"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Cell:
    """A cell that was executed.

    Attributes:
        outputs: Its outputs, as nbformat stores them.
    """

    outputs: list[dict[str, Any]]

    @property
    def size(self) -> int:
        """Bytes of the outputs."""
        return len(json.dumps(self.outputs))

    @property
    def traceback(self) -> list[str]:
        """The lines of the error, without colours."""
        [error] = [each for each in self.outputs if each["output_type"] == "error"]
        return _COLOUR.sub("", "\n".join(error["traceback"])).splitlines()

    @property
    def printed(self) -> str:
        """What was printed."""
        streams = [each for each in self.outputs if each["output_type"] == "stream"]
        return "".join("".join(each["text"]) for each in streams)

    def shown(self, mime_type: str) -> list[str]:
        """What was displayed, in one format."""
        return ["".join(each["data"][mime_type]) for each in self.outputs if "data" in each]


def execute_notebook(notebook: dict[str, Any], *, folder: Path, answer: str = "") -> dict[str, Any]:
    """Return a notebook with its outputs.

    Args:
        notebook: The notebook, as JSON.
        folder: The working folder.
        answer: What to answer if a cell asks for input.
    """
    there = Path(stac_gitlab.__file__).parents[1]
    command = [program("python"), str(EXECUTE), *([answer] if answer else [])]
    environment = {
        **os.environ,
        "PYTHONPATH": str(there),
        "IPYTHONDIR": str(folder / ".ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / ".jupyter"),
    }
    done = subprocess.run(
        command,
        input=json.dumps(notebook),
        cwd=folder,
        env=environment,
        timeout=110,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    executed: dict[str, Any] = json.loads(done.stdout)
    return executed


def run_cells(*sources: str, folder: Path, answer: str = "") -> list[Cell]:
    """Execute cells in a new kernel; return them with their outputs."""
    cells = [
        {"cell_type": "code", "source": s, "metadata": {}, "outputs": [], "execution_count": None}
        for s in sources
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    executed = execute_notebook(notebook, folder=folder, answer=answer)
    return [Cell(cell["outputs"]) for cell in executed["cells"]]
