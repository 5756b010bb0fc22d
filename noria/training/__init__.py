"""Recipes: what is learned, in which order, from where."""
