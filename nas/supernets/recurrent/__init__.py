"""The recurrent language model with shared weights, and one cell of it alone.

It imports nothing: `native_loop.prepare` begins to compile before the rest is imported.
"""
