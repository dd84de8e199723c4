"""The sans-I/O protocol that both sides share. `docs/protocol.md` describes it for others."""
