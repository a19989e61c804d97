"""The DICOM node: takes studies from a network, has them analysed, sends results back.

`receiver` (C-STORE) or `dicomweb` (QIDO, WADO) -> `spool` -> `arrivals` (has it settled?) ->
the ledger and engine of `leakloc.services.batch` -> `outbox` -> C-STORE or STOW.
"""
