"""Guest images: building, importing, finding, and checking them against the contract."""
