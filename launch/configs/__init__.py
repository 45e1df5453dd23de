"""Presets: one file each, whose name is that of the configuration and whose docstring is its
command and expected result.
"""
