"""Every cell of a small recurrent space trained alone: recipe, training, table, its facts."""
