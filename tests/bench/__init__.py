"""Benchmarks: the local database, the pool and the synth, each against a reference."""
