"""What CloudFlow's database is. Standard library only: stacks and localhost both import it."""
