"""A program that writes its arguments to a file."""

import json
import os
import sys
import time
from pathlib import Path

parameters = json.loads(Path(os.environ["BONSEYES_PARAMETERS"]).read_text())
output = Path(os.environ["BONSEYES_OUTPUT"])
(output / "argv.json").write_text(json.dumps(sys.argv[1:]))
(output / "parameters.json").write_text(json.dumps(parameters))
with (Path(os.environ["BONSEYES_METRICS"]) / "speed").open("a") as metrics:
    metrics.write(f"{time.time()} 1 2.5\n")
progress = Path(os.environ["BONSEYES_PROGRESS"])
temporary = progress.with_name("progress.new")
temporary.write_text(json.dumps({"done": 1, "total": 2, "unit": "halves", "message": "half"}))
temporary.replace(progress)
print("the program ends")
sys.exit(parameters["status"])
