"""Hosts: the user's settings, the connection to each, and the trees that guests there mount."""

from orchestrator.hosts.choice import HERE, HostChoice
from orchestrator.hosts.hosts import Hosts, OpenHost, open_hosts
from orchestrator.hosts.members import Members
from orchestrator.hosts.settings import HostSettings, HostUnknown, find_host, load_hosts
from orchestrator.hosts.trees import LocalTrees, Tree, Trees

__all__ = [
    "HERE",
    "HostChoice",
    "HostSettings",
    "HostUnknown",
    "Hosts",
    "LocalTrees",
    "Members",
    "OpenHost",
    "Tree",
    "Trees",
    "find_host",
    "load_hosts",
    "open_hosts",
]
