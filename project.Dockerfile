# Dagster's services with this project's pipelines, and the tools' descriptions that its ops are made of.
ARG BONSEYES_VERSION=latest
FROM bonseyes/dagster:${BONSEYES_VERSION}
# A project may have a dagster.yaml, and need not.
COPY definitions.py workspace.yaml dagster.yam[l] /project/
COPY components /project/components
COPY containers /project/containers
