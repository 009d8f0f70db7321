"""`python -m deal` runs the command line, as torchrun requires."""

import sys

from deal.cli import main

if __name__ == "__main__":
    sys.exit(main())
