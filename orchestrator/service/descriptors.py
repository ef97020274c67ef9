"""How the service's descriptors are shared: clients may not take those that jobs need."""

from __future__ import annotations

import resource

from orchestrator.service.connections import MAX_CONNECTIONS

# A connection and the file that it is answered with are two; as many again stay for jobs.
_OF_ALL = 4


def raise_descriptor_limit() -> int:
    """Take as many descriptors as this process may have; how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return MAX_CONNECTIONS * _OF_ALL * 2 if hard == resource.RLIM_INFINITY else hard


def connections_per_listener(descriptors: int, listeners: int) -> int:
    """How many connections each of the listeners may have, of so many descriptors."""
    return max(1, min(MAX_CONNECTIONS, descriptors // _OF_ALL // listeners))
