"""With sentence-transformers in FP32: `python -m bench.apps.in_torch FOLDER`."""

import sys

from sentence_transformers import SentenceTransformer

from bench.apps import serve


def main(folder: str) -> None:
    model = SentenceTransformer(folder, device="cpu")
    serve(lambda texts: model.encode(texts, show_progress_bar=False))


if __name__ == "__main__":
    main(sys.argv[1])
