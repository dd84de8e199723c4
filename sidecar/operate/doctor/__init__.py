"""What is wrong with a host, its settings, its models and its daemon, and what to do about it.

Each file looks at one of these: a function reads the facts, others judge them, purely.
`examine` puts them in order. Nothing here changes anything, and nothing takes for ever.
"""
