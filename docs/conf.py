"""Sphinx's settings for the documentation site: `sphinx-build -W docs outputs/site`. It needs no network to read."""

project = "runner"
html_title = "runner"
extensions = ["myst_parser", "sphinx_copybutton"]
html_theme = "furo"
exclude_patterns = ["*.py"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Prompts are not copied
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True
html_copy_source = False
