"""Traces for people and tools: one model of a job's entries, in several output forms. Pure."""
