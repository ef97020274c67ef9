"""The web page. Rendered on the server; a few scripts keep it up to date."""
