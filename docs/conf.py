"""Sphinx settings. Build with `sphinx-build -W docs docs/_build`."""

from importlib.metadata import version as installed

project = "unclip"
author = "the unclip authors"
copyright = "the unclip authors; Apache License 2.0"
release = version = installed("unclip")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.viewcode"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "unclip"
html_show_sphinx = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
