"""One capability of the stacks in each file."""
