"""Metrics, answers through the engine that will serve, and reports."""
