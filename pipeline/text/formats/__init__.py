"""Documents: one file a format, from its bytes to text. Today there is plain text alone."""
