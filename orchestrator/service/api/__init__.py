"""The resources under /v1: a request is decoded, done by the orchestrator, and answered."""
