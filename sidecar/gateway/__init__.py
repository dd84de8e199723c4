"""HTTP for those who cannot speak msgpack: what OpenAI's, Cohere's and Jina's clients send.

A process of its own, and to the daemon one client like any other. It computes nothing and keeps
nothing. This needs the extra `gateway`.
"""
