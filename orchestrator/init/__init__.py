"""Finds in a project's own files how it is tested, and makes the text of a first job file. Pure."""

from __future__ import annotations

from orchestrator.init.detect import detect
from orchestrator.init.findings import Findings, Job
from orchestrator.init.tree import Tree
from orchestrator.init.write import write

__all__ = ["Findings", "Job", "Tree", "detect", "write"]
