"""A tool whose result has the variant of each of its code files."""

import json
import os
import time
from pathlib import Path

VARIANT = "@a@"
HERE = Path(__file__).parent


def create(artifact, *, text, seconds, upload):
    """Read and import one file after the other, with a pause in the middle, and write their variants down."""
    with Path(os.environ["CAMPAIGN_LEDGER"]).open("a") as ledger:
        ledger.write(f"{artifact.name}\n")
    table = (HERE / "table.txt").read_text().strip()
    time.sleep(seconds)
    import helper
    import lazy

    extra = HERE / "extra.txt"
    code = {
        "layers.py": VARIANT,
        "lazy.py": lazy.VARIANT,
        "helper.py": helper.VARIANT,
        "table.txt": table,
        "extra.txt": extra.read_text().strip() if extra.exists() else "none",
    }
    content = upload.read_text() if upload else ""
    artifact.path("result.json").write_text(json.dumps({"code": code, "text": text, "upload": content}))
