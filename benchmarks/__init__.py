"""Measurements against other tools. Not part of the installed package."""
