"""Planted personal data: how often it is found, how often something else is taken for it."""
