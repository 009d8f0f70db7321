"""`python -m deal` is the command `deal`, as torchrun needs it."""

import sys

from deal.cli import main

sys.exit(main())
