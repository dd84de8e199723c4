"""`python -m sidecar`, equivalent to the console script."""

import sys

from sidecar.cli import main

if __name__ == "__main__":
    sys.exit(main())
