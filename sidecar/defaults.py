"""Default limits, stated once for the settings and for the code that enforces them.

Those of a single request are `client_lib.wire.protocol.Limits`, which clients know too.
"""

QUEUE_ROWS = 16_384
QUEUE_TOKENS = 4 * 2**20
QUEUE_BYTES = 256 * 2**20
PEER_SHARE = 0.5
CONNECTIONS_PER_PROCESS = 64
STALL_SECONDS = 30.0
DRAIN_SECONDS = 30.0
HANG_SECONDS = 30.0
