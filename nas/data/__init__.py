"""Data sets: texts (`nas.data.text`), images (`nas.data.images`), tables of accuracies
(`nas.data.table`).

A new corpus is one file with a TFDS builder and one line of the registry in `nas/data/text.py`; a
new data set is one file with a `nas.tasks.Data`.
"""
