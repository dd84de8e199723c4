"""sentence-transformers behind mosec: MODEL, the MOST texts of a batch, and mosec's own flags."""

import base64
import sys
from typing import Any

from mosec import Server, Worker
from sentence_transformers import SentenceTransformer

_WAIT_MS = 10  # mosec's own default


class Embedder(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._model = SentenceTransformer(sys.argv[1], device="cpu")

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        texts = [each["input"] for each in data]
        vectors = self._model.encode(texts, batch_size=len(texts), show_progress_bar=False)
        return [
            {"data": [{"embedding": base64.b64encode(vector.tobytes()).decode()}]}
            for vector in vectors
        ]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Embedder,
        max_batch_size=int(sys.argv[2]),
        max_wait_time=_WAIT_MS,
        route="/v1/embeddings",
    )
    server.run()
