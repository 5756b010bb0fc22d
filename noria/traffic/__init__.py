"""Interactions and feedback: written by the gateway as segments, kept in the lake as Parquet."""
