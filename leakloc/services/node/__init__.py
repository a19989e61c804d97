"""DICOM node: receives studies, analyzes them and returns the results.

`receiver` (C-STORE) or `dicomweb` (QIDO, WADO) -> `spool` -> `arrivals` (is it complete?) ->
the ledger and engine of `leakloc.services.batch` -> `outbox` -> C-STORE or STOW.
"""
