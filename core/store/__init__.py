"""What a run leaves behind: ledger, published outputs, provenance and tables."""
