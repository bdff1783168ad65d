"""The tags that Dagster's jobs, runs and ops carry for this project; stored runs have them: they keep their names."""

# Of jobs, and so of their runs.
PIPELINE_TAG = "bonseyes/pipeline"
VERSION_TAG = "bonseyes/version"
# Of runs.
RUN_TAG = "bonseyes/run"
REUSE_TAG = "bonseyes/reuse"
IDEMPOTENCY_TAG = "bonseyes/idempotency-key"
# The digest of the request that came with the key.
IDEMPOTENCY_BODY_TAG = "bonseyes/idempotency-body"
# Of runs whose id is made of their name: another value for each run of the name, so that one is not taken for another.
LAUNCH_TAG = "bonseyes/launch"
# The token of the files that were uploaded with the run.
UPLOADS_TAG = "bonseyes/uploads"
# Of a run that is being deleted, and of one whose artifacts go with it; their value is the run's own id.
DELETED_TAG = "bonseyes/deleted"
DELETE_ARTIFACTS_TAG = "bonseyes/delete-artifacts"
# Of ops.
CONTAINER_TAG = "bonseyes/container"
OUTPUT_TYPE_TAG = "bonseyes/output-type"
