"""Reading studies and choosing series."""
