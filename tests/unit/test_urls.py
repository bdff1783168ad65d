"""The paths of the contract and the names in them."""

import pytest

from bonseyes_dagster import urls


@pytest.mark.parametrize("name", ["a", "0", "a.b-c_d", "A" * 128, "training-set", "run.1_train"])
def test_valid_names(name: str) -> None:
    """Letters, digits, dots, underscores and hyphens, up to 128 characters."""
    assert urls.is_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a..b", "-a", "_a", "a/b", "a b", "A" * 129, "a\n", "é", "a\x00"])
def test_invalid_names(name: str) -> None:
    """No name can leave a folder, split a path or hide in a log."""
    assert not urls.is_name(name)


def test_each_path_has_one_spelling() -> None:
    """The client and the servers build paths with the same functions."""
    assert urls.collection("runs") == "/runs"
    assert urls.item("a b") == "/artifacts/a%20b"
    assert urls.part("a", "data", "x/y z.png") == "/artifacts/a/data/x/y%20z.png"
    assert urls.part("r", "log", kind="runs") == "/runs/r/log"
    assert urls.canonical("import", "a") == "http://import/artifacts/a"
    assert urls.gateway_container("training-set") == "/containers/training-set"
