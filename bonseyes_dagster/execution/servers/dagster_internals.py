"""Private parts of Dagster that `execution/servers/` uses. A new version of Dagster may move them."""

from dagster._cli import utils
from dagster._cli.api import grpc_command
from dagster._core.secrets.env_file import get_env_var_dict
from dagster._core.workspace.context import IWorkspaceProcessContext
from dagster._grpc import server as dagster_server
from dagster._grpc.__generated__ import dagster_api_pb2

__all__ = ["IWorkspaceProcessContext", "dagster_api_pb2", "dagster_server", "get_env_var_dict", "grpc_command", "utils"]
