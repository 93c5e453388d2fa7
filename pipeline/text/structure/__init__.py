"""Layout: which lines of plain text are headings, contents, prose or marks."""
