"""``python -m stac_gitlab`` is the same as the ``stac-gitlab`` command."""

import sys

from stac_gitlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
