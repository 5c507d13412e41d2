"""CloudFlow's database, the same on AWS and on localhost. It needs the standard library only."""
