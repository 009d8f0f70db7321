"""`python -m deal` runs the command line, as torchrun requires."""

import sys

from deal.cli import main

sys.exit(main())
