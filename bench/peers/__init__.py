"""Other systems, driven the same way."""
