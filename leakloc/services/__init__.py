"""Studies in batches and from a PACS."""
