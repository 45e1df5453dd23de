"""All that a GPU can tell within minutes: stages, each a process of its own with a time limit."""
