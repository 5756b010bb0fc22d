"""noria: the whole life of a language model on one's own machines, as one loop that closes."""

__version__ = "0.1.0"
