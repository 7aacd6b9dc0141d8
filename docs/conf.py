"""Sphinx configuration. To build: `sphinx-build -W --keep-going -b html docs <folder>`."""

import sys
import tempfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

from stac_gitlab import __version__

project = "stac_gitlab"
author = "The stac_gitlab authors"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "notebook_pages",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"stac_gitlab {version}"
html_copy_source = False
# The page of a search result is read for its excerpt.
html_show_search_summary = True
# An example's output, and the comments with values, are not copied.
copybutton_selector = "div.highlight-python pre, div.highlight-sh pre, div.highlight-yaml pre"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

myst_enable_extensions = ["substitution"]
myst_heading_anchors = 3
myst_substitutions = {"version": version}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# A class shows its signature once; "Args" describes the parameters.
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Docstrings put argument names in single backticks.
default_role = "code"

# What signatures name of other libraries, and where it is documented. These are small inventories
# of our own, because the documentation is also built without a network.
_ABC = ("Callable", "Iterable", "Iterator", "Mapping", "Sequence")
_PYSTAC = {
    "asset": "Asset",
    "catalog": "Catalog",
    "collection": "Collection",
    "item": "Item",
    "item_collection": "ItemCollection",
    "stac_object": "STACObject",
}
_ELSEWHERE = {
    "https://docs.python.org/3": {
        "os.PathLike": "library/os.html#os.PathLike",
        "pathlib.Path": "library/pathlib.html#pathlib.Path",
        **{
            f"collections.abc.{name}": f"library/collections.abc.html#collections.abc.{name}"
            for name in _ABC
        },
    },
    "https://pystac.readthedocs.io/en/stable": {
        f"pystac.{module}.{name}": f"api/pystac.html#pystac.{name}"
        for module, name in _PYSTAC.items()
    },
    "https://requests.readthedocs.io/en/latest": {
        "requests.models.Request": "api/#requests.Request",
        "requests.models.Response": "api/#requests.Response",
        "requests.sessions.Session": "api/#requests.Session",
        "requests.exceptions.HTTPError": "api/#requests.HTTPError",
        "requests.exceptions.ConnectionError": "api/#requests.ConnectionError",
        "requests.exceptions.Timeout": "api/#requests.Timeout",
    },
}


_folder = tempfile.TemporaryDirectory()
intersphinx_mapping = {}
for url, objects in _ELSEWHERE.items():
    host = url.split("/")[2]
    lines = "".join(f"{name} py:class 1 {place} -\n" for name, place in objects.items())
    head = b"# Sphinx inventory version 2\n# Project: -\n# Version: -\n# zlib\n"
    inventory = Path(_folder.name, host)
    inventory.write_bytes(head + zlib.compress(lines.encode()))
    intersphinx_mapping[host.split(".")[0]] = (url, str(inventory))
