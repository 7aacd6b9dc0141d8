"""Sphinx extension: pages from executed notebooks, as they are, without executing them."""

from __future__ import annotations

import json
import re
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The files that a notebook has downloaded are not part of the documentation.
_LOCAL_LINK = re.compile(r'<a href="\./[^"]*">(.*?)</a>')


class NotebookParser(MystParser):
    """Parses the JSON of a notebook."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse the cells and their outputs as MyST."""
        cells = json.loads(inputstring)["cells"]
        name = document.settings.env.docname.rpartition("/")[2]
        note = f"{{download}}`Download this notebook <{name}.ipynb>`"
        parts = [part for cell in cells for part in _parts(cell)]
        super().parse("\n\n".join([*parts[:1], note, *parts[1:]]), document)


def _parts(cell: dict[str, Any]) -> list[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return [source]
    return [_fence("python", source), *map(_output, cell.get("outputs", []))]


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "error":
        return _fence("text", _COLOUR.sub("", "\n".join(output["traceback"])))
    if output["output_type"] == "stream":
        return _fence("text", "".join(output["text"]))
    shown = {kind: "".join(text) for kind, text in output["data"].items()}
    if "text/html" in shown:
        return _fence("{raw} html", _LOCAL_LINK.sub(r"\1", shown["text/html"]))
    return _fence("text", shown["text/plain"])


def _fence(language: str, text: str) -> str:
    fence = max(["``", *re.findall("`{3,}", text)], key=len) + "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the file type."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True}
