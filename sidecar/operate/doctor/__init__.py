"""Diagnoses a host, its settings, its models and its daemon, and says what to do.

Each module examines one of these: one function reads the facts, others judge them, purely.
`examine` puts them in order. Nothing here changes anything or blocks for ever.
"""
