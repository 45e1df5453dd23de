"""The recurrent language model with shared weights, and one cell of it alone.

This file imports nothing, so that `native_loop.prepare` begins to compile before the rest is
imported.
"""
