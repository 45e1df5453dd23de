"""The image networks of ENAS: shared weights, one architecture alone, baselines."""
