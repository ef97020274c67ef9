"""Egress of a guest without a network: an HTTP proxy in this process, behind an exec.

A program in the guest listens on its loopback, and carries the connections over stdin and stdout
(`link`). Here `proxy` serves them: it connects to what the job's rules allow (`dial`), and keeps
account of everything (`ledger`).
"""
