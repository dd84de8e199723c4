"""sentence-transformers behind LitServe: MODEL, the MOST texts of a batch, and a PORT."""

import base64
import sys
from typing import Any

import litserve
from sentence_transformers import SentenceTransformer

_WAIT_SECONDS = 0.01
_TIMEOUT_SECONDS = 120


class Embedder(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._model = SentenceTransformer(sys.argv[1], device=device)

    def decode_request(self, request: dict[str, Any]) -> str:
        return request["input"]

    def predict(self, texts: list[str]) -> Any:
        return self._model.encode(texts, batch_size=len(texts), show_progress_bar=False)

    def encode_response(self, vector: Any) -> dict[str, Any]:
        return {"data": [{"embedding": base64.b64encode(vector.tobytes()).decode()}]}


if __name__ == "__main__":
    embedder = Embedder(
        max_batch_size=int(sys.argv[2]), batch_timeout=_WAIT_SECONDS, api_path="/v1/embeddings"
    )
    server = litserve.LitServer(embedder, accelerator="cpu", timeout=_TIMEOUT_SECONDS)
    server.run(host="127.0.0.1", port=int(sys.argv[3]), generate_client_file=False)
