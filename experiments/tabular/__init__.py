"""Studies on tables of all architectures of a space: settings, many seeds at once, measures,
report.
"""
