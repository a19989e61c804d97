"""Phantoms, simulated contrast on real anatomy, and measurement against known truth."""
