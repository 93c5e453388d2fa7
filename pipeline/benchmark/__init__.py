"""Benchmarks: stages of the engine compared with stock, on this machine. Only `jobs.benchmark` imports this."""
