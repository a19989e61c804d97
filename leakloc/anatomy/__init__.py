"""What knows the spine but no disease: names, sizes, the canal and the anatomy network."""
