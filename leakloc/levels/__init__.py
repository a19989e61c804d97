"""Naming vertebral levels: detection, then numbering."""
