"""Batch processing of studies and the DICOM node."""
