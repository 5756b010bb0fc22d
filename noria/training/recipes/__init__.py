"""How candidates are made: one file for each kind of recipe."""
