"""The development database on this machine: tools, servers and the command line behind `make`."""
