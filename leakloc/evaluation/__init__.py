"""Measuring results against truth."""
