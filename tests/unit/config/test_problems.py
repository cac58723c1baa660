"""Problems as lines and as JSON."""

from tabi.config.problems import MOST_ALIKE, Problem, folded


def warning(line: int, complaint: str) -> Problem:
    """One in a file."""
    return Problem(file="tabi.toml", line=line, where=f"rule {line}", complaint=complaint, accepted="", warning=True)


def test_of_many_alike_the_first_are_told_and_how_many_more() -> None:
    never = [warning(line, f"can never match: rule {line - 1} takes it") for line in range(1, 1001)]
    other = warning(1001, "takes passwords in clear")
    lines = folded([*never, other])
    assert len(lines) == MOST_ALIKE + 2
    assert lines[:20] == [str(one) for one in never[:20]]
    assert lines[20] == str(other)
    assert lines[21] == "tabi.toml: warning: 980 more of 1000: can never match; `tabi check tabi.toml` lists all"


def test_as_many_as_are_told_are_not_folded() -> None:
    never = [warning(line, f"can never match: rule {line}") for line in range(MOST_ALIKE)]
    assert folded(never) == [str(one) for one in never]


def test_problem_is_the_same_after_json() -> None:
    one = Problem(file="f", line=3, where="w", key="k", found="x", complaint="c: d", accepted="a", warning=True)
    assert Problem.from_dict(one.as_dict()) == one
