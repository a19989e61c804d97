"""What knows no spine: errors, notes, volumes, settings, networks, optional packages."""
