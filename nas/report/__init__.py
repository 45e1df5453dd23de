"""Figures, tables and the report page: arrays in, files out. Knows neither runs nor JAX."""
