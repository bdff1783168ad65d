"""`python -m bonseyes_dagster.orchestration.run_watch`: watches the runs of a project that have one container each.

It is `execution/containers/run_watch.py`. In addition it cancels the artifacts that an ended run left in progress.
"""

from bonseyes_dagster.execution.containers.run_watch import main
from bonseyes_dagster.orchestration.runs.withdrawal import withdraw

if __name__ == "__main__":
    main(withdraw)
