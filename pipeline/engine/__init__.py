"""Engines: requests in, speech out. `protocol` is what all of them offer; `registry` builds one from its name."""
