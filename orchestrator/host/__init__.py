"""The machine that guests run on: setup and diagnosis."""
