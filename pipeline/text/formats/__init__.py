"""File formats: one module decodes one format into text. Only plain text is supported today."""
