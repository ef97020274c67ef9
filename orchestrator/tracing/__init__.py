"""Traces to look at: one reading of a job's entries, drawn in several forms. Pure."""
