"""How Sphinx builds this site: `sphinx-build -W docs build/docs`; nothing is fetched from a network."""

from __future__ import annotations

import sys
from pathlib import Path

import popek

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "popek"
author = "The popek authors"
copyright = "The popek authors, Apache License 2.0"
version = release = popek.__version__

extensions = [
    "myst_parser",  # pages are Markdown, so that a forge shows them, too
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings in Google's style
    "popek_reference",  # the command line and the machines, from themselves
]
exclude_patterns = ["build"]
nitpicky = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
suppress_warnings = [
    "misc.highlighting_failure",  # shortened JSON (with …) is no JSON
    "ref.python",  # a name in an annotation that two modules declare is left without a link
]

default_role = "code"  # docstrings use single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_class_signature = "mixed"
napoleon_use_ivar = True
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "popek"
html_show_sourcelink = True
html_static_path = ["_static"]
html_css_files = ["popek.css"]
templates_path: list[str] = []
