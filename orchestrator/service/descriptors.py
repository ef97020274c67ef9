"""Limits connections, so that clients cannot use up the file descriptors that jobs need."""

from __future__ import annotations

import resource

from orchestrator.service.connections import MAX_CONNECTIONS

# Two for a connection and the file that is sent over it; as many again for jobs.
_OF_ALL = 4


def raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return MAX_CONNECTIONS * _OF_ALL * 2 if hard == resource.RLIM_INFINITY else hard


def connections_per_listener(descriptors: int, listeners: int) -> int:
    """How many connections each listener may have, for this number of descriptors."""
    return max(1, min(MAX_CONNECTIONS, descriptors // _OF_ALL // listeners))
