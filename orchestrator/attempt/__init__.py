"""One attempt at a job: its plan, its effects in Incus, and the evidence it leaves."""
