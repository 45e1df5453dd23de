"""The study on a table of all architectures of NAS-Bench-201: settings, many seeds at once,
measures, report.
"""
