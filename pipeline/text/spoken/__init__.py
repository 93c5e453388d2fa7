"""Spoken text: exactly what the model is given, made from the book's characters."""
