"""Measurements: stages of the engine beside stock, on the machine at hand. Nothing else imports this."""
