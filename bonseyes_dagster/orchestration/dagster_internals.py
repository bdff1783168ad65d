"""What `orchestration/` uses of Dagster that is not public: a new version of Dagster may move it."""

from dagster._core.definitions.dependency import Node, NodeHandle, NodeInput, NodeInputHandle, NodeOutput
from dagster._core.storage.tags import RUN_KEY_TAG

__all__ = ["RUN_KEY_TAG", "Node", "NodeHandle", "NodeInput", "NodeInputHandle", "NodeOutput"]
