"""Private names of Dagster that `orchestration/` uses. A new version of Dagster may move them."""

from dagster._core.definitions.dependency import Node, NodeHandle, NodeInput, NodeInputHandle, NodeOutput
from dagster._core.storage.tags import RUN_KEY_TAG

__all__ = ["RUN_KEY_TAG", "Node", "NodeHandle", "NodeInput", "NodeInputHandle", "NodeOutput"]
