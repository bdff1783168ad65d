"""The kinds of containers, by output type."""

from __future__ import annotations

import re
from pathlib import Path

from bonseyes_dagster.pipeline.provenance import BENCHMARK
from bonseyes_dagster.pipeline.survey import kind_of

AUTHORING = Path(__file__).parents[3] / "docs/authoring.md"


def test_authoring_page_lists_every_special_output_type() -> None:
    """The table has every name that the project treats specially, and no other."""
    table = AUTHORING.read_text().partition("| `output_type` | effect |")[2].partition("\n\n")[0]
    assert {name: kind_of(name) for name in re.findall(r"`(com\.bonseyes\.[a-z-]+)`", table)} == {
        BENCHMARK: "model",
        "com.bonseyes.model": "model",
        "com.bonseyes.dataset": "data",
        "com.bonseyes.tensors": "data",
        "com.bonseyes.training-set": "data",
    }
    assert kind_of("com.example.anything") == "other"
