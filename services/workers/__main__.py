"""`python -m services.workers`: what Ray starts for an attempt."""

import sys

from services.workers.driver import drive
from services.workers.settings import Settings

if __name__ == "__main__":
    sys.exit(drive(Settings()))
