"""sentence-transformers' two classes over a daemon: change the import, keep the calls.

    from client_lib.compat import CrossEncoder, SentenceTransformer

Arguments, types, shapes, dtypes and order match sentence-transformers 6. Options that the daemon
cannot honour raise an error that names them. torch is imported only if a tensor is requested.
"""

from client_lib.compat.cross_encoder import CrossEncoder
from client_lib.compat.sentence_transformer import SentenceTransformer

__all__ = ["CrossEncoder", "SentenceTransformer"]
