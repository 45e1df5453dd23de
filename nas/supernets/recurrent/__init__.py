"""The recurrent language model with shared weights, and one cell of it alone."""
