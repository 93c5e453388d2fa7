"""A job as a call: `session.run_book(config, stop)` renders what is missing of a book. Knows nothing of Hydra.

`session` holds the folder, `loop` drives the engine, `retry` decides what is tried again, `writer` makes it durable.
"""
