"""How the documentation is built: `sphinx-build -W --keep-going -b html docs <folder>`."""

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
# Arguments stand under "Args" already, and a class shows its signature once.
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# Docstrings name arguments in single backticks.
default_role = "code"
