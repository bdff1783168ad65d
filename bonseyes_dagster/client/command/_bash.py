"""Completion in bash, which splits a word at `=` and `:` and adds a blank after each completed word."""

from __future__ import annotations

import os
from typing import Any

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

__all__ = ["BashCompletion"]

# The script passes the whole line to the command, because COMP_WORDS splits `epochs=5` into three words.
_SCRIPT = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            nospace) compopt -o nospace; COMPREPLY+=("$(printf '%%q' "$value")") ;;
            plain) COMPREPLY+=("$(printf '%%q' "$value")") ;;
        esac
    done < <(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_OPEN_ENDS = ("=", "/")


class BashCompletion(BashComplete):
    """Completes the whole word at the cursor, and gives bash the part that bash replaces."""

    source_template = _SCRIPT
    _replaced_from = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the word at the cursor, and the word at the cursor."""
        line = os.environ.get("COMP_LINE", "")
        words: list[str] = split_arg_string(line)
        incomplete = "" if not words or line[-1:].isspace() else words.pop()
        breaks = [incomplete.rfind(each) for each in "=:" if each in os.environ.get("COMP_WORDBREAKS", "=:")]
        self._replaced_from = incomplete[: max(breaks, default=-1) + 1]
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return a line `TYPE,VALUE` for the script."""
        value = str(item.value)
        kind = "nospace" if item.type == "plain" and value.endswith(_OPEN_ENDS) else item.type
        return f"{kind},{value.removeprefix(self._replaced_from)}"


add_completion_class(BashCompletion)
