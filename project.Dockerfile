# Dagster's services, with this project's pipelines and with the descriptions of its tools, which become its ops.
ARG BONSEYES_VERSION=latest
FROM bonseyes/dagster:${BONSEYES_VERSION}
# The file dagster.yaml is optional.
COPY definitions.py workspace.yaml dagster.yam[l] /project/
COPY components /project/components
COPY containers /project/containers
