"""The search study: searches, derived cells, training from scratch, searches without sharing."""
