"""One attempt at a job: its plan, its effects in Incus, and what it leaves behind."""
