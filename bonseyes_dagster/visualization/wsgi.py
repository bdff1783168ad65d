"""What uWSGI imports: TensorBoard as the environment sets it up."""

from __future__ import annotations

from bonseyes_dagster.visualization.app import create

application = create()
