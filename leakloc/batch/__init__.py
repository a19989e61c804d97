"""Many studies: found, queued in a ledger, analysed in parallel, listed."""
