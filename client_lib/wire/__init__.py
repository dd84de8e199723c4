"""The sans-I/O protocol that both sides share; `docs/protocol.md` specifies it."""
