"""Writing what an analysis found: JSON, pictures, masks, DICOM objects."""
