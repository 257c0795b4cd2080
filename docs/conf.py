# Sphinx settings; `make docs`.

import re
from importlib.metadata import version as installed_version

project = "totora"
author = "The totora developers"
copyright = "The totora developers"
version = release = installed_version("totora")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
default_role = "py:obj"
# A module that cannot be imported at the moment costs its section, not the pages; tests/test_house.py is strict there.
suppress_warnings = ["autodoc.import_object"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = f"totora {release}"
html_show_sphinx = False
html_copy_source = False

ARGUMENTS = re.compile(r"(\*{0,2}[a-z_]\w*(?:, \*{0,2}[a-z_]\w*)*): (\S.*)$")


def explain_arguments(app, what, name, obj, options, lines):
    """Our docstrings say `timeout_s: how long it may take`, bare and a line each: make a list of them."""
    out = []
    inside = False
    for number, line in enumerate(lines):
        match = ARGUMENTS.match(line)
        starts = match and (inside or number == 0 or not lines[number - 1].strip())
        if starts:
            names = ", ".join(f"``{each}``" for each in match[1].split(", "))
            if not inside and out and out[-1].strip():
                out.append("")
            out.append(f"* {names}: {match[2]}")
            inside = True
        elif inside and line.strip():
            if not line.startswith(" "):
                inside = False
                out += ["", line]
            else:
                out.append("  " + line.strip())
        else:
            inside = inside and bool(line.strip())
            out.append(line)
    lines[:] = out


def setup(app):
    app.connect("autodoc-process-docstring", explain_arguments)
    return {"parallel_read_safe": True}
