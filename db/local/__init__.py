"""The development database on this machine, and the command line behind `make`."""
