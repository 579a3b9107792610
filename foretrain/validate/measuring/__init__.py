"""Timers, meters, stamps and microbenchmarks of whatever devices are there."""
