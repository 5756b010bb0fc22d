"""The commands of `noria`, by noun. Each parses, calls one function and renders."""
