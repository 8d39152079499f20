"""Edit pictures by instruction on all GPUs, then have a judge score them; see --help."""

import sys

from core.benchmark.command import main

if __name__ == "__main__":
    sys.exit(main())
