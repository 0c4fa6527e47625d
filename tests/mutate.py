"""`.venv/bin/python tests/mutate.py --help`: make mistakes on purpose, one at a time, and see which test notices."""

import sys

from mutation.run import main

if __name__ == "__main__":
    sys.exit(main())
