"""Sphinx configuration. To build: `sphinx-build -W --keep-going -b html docs <folder>`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from stac_gitlab import __version__

project = "stac_gitlab"
author = "The stac_gitlab authors"
copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"stac_gitlab {version}"
html_copy_source = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# A class shows its signature once; "Args" describes the parameters.
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Docstrings put argument names in single backticks.
default_role = "code"
