"""Deployment files, generated from noria.toml: plain dictionaries that a library writes as YAML."""
