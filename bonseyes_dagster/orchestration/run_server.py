"""`python -m bonseyes_dagster.orchestration.run_server`: the server of a project that forks a process for each run.

It is `execution/processes/run_server.py`, with the same arguments. In addition it cancels the artifacts that an ended
run left in progress.
"""

from bonseyes_dagster.execution.processes.run_server import main
from bonseyes_dagster.orchestration.runs.withdrawal import withdraw

if __name__ == "__main__":
    main(withdraw)
