"""Export to the layouts of other tools, and import from them."""
