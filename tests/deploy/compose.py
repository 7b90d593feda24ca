"""docker-compose.yml as it stands."""

from pathlib import Path
from typing import cast

import yaml

ROOT = Path(__file__).parent.parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = cast(dict[str, dict], COMPOSE["services"])
