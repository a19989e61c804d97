"""HTML pages of a study: templates, styles, scripts, and the values displayed in them."""
