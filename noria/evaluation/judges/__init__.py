"""Judges: models that score answers, how they are asked, what they cost, and how far they agree with people."""
