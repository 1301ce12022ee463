"""`python -m raseed` is the `raseed` command."""

import sys

from raseed.cli import main

sys.exit(main())
