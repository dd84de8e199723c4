"""Operator tools: a daemon's status, its events, and a diagnosis of its host."""
