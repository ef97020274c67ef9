"""The page: what the API tells, for people. Made on the host; a few scripts keep it up to date."""
