"""From the book's characters to exactly what the model is given."""
