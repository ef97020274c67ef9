"""The resources under /v1. Handlers decode a request, call the orchestrator, and answer."""
