"""Data sets: text (`nas.data.text`) as windows of token streams (`nas.data.tokens`).

A new corpus is one file with a TFDS builder and one line of the registry in `nas/data/text.py`; a
new data set is one file with a `nas.tasks.Data`.
"""
