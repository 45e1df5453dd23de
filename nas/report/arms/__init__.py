"""The report of a study: arms, measured after several seeds, as tables, answers and a page."""
