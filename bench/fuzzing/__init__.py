"""Peers that a fuzzer thinks up, against a real server: `python -m bench fuzz`.

`script` makes of any bytes what one peer does (pure), out of the frames of `frames` and the
msgpack of `values`; `stage` is the server that it does it to; `guided` searches for inputs by
coverage, in a process of its own; `corpus` keeps them.
"""
