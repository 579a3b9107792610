"""Profiles of accelerators, nodes and clusters, as data."""
