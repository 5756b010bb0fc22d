"""Lineage: from an answer back to the rows that taught it."""
