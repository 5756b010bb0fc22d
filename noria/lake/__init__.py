"""Sources in: one reader per kind, and the stage `sources` that turns them into documents with their provenance."""
