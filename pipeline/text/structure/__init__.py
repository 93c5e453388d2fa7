"""Structure: which lines of plain text are headings, tables of contents, prose or marks."""
