"""The machine that guests run on: set up, and looked at."""
