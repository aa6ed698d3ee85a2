"""What every test shares: nothing is fetched."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
