"""Guest images: built, imported, looked up, and checked against the contract."""
