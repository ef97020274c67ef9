"""The service: an orchestrator behind HTTP."""
