"""Holds a finished run against what was promised, from its files alone. Knows no engine, option or network.

The plan says what should be there, the book's text whether the plan is whole, the journal what was written, and the
WAVs whether it still is. Each damage is told once, under the name of what is broken; what follows from it is not told.
"""
