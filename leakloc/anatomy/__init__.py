"""Spinal anatomy: level names, reference dimensions, the canal and the anatomy network."""
