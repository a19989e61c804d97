"""A digital spine phantom with known truth."""
