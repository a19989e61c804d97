"""General modules: errors, notes, volumes, settings, networks, optional packages."""
