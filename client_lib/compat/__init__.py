"""sentence-transformers' two classes over a daemon: change the import, keep the calls.

    from client_lib.compat import CrossEncoder, SentenceTransformer

Arguments, types, shapes, dtypes and order are those of sentence-transformers 6; what the daemon
cannot do is refused by name. torch is imported where a tensor is asked for, and nowhere else.
"""

from client_lib.compat.cross_encoder import CrossEncoder
from client_lib.compat.sentence_transformer import SentenceTransformer

__all__ = ["CrossEncoder", "SentenceTransformer"]
