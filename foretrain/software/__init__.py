"""Profiles of training frameworks, as data."""
