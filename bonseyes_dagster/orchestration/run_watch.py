"""`python -m bonseyes_dagster.orchestration.run_watch`: watches over a project's runs in containers of their own.

That is `execution/containers/run_watch.py`; it also cancels the artifacts that an ended run left in progress.
"""

from bonseyes_dagster.execution.containers.run_watch import main
from bonseyes_dagster.orchestration.runs.withdrawal import withdraw

if __name__ == "__main__":
    main(withdraw)
