"""HTTP gateway for clients that do not speak msgpack: the OpenAI, Cohere and Jina APIs.

It runs as a separate process and is an ordinary client of the daemon: it does no inference and
keeps no state. It needs the `gateway` extra.
"""
