"""Answers of a trained prompt: loading it, asking it, and what is written of its answers."""
