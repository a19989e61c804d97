"""Placing what was segmented: levels, extent, side, grade, and the way from the sacral hiatus."""
