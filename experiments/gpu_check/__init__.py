"""All that a GPU can show within minutes: stages, each a process of its own with a time limit."""
