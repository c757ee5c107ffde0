"""Observers hear of every stage, in the order of a tree, and of its end whatever happens."""

import contextlib
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from lattq.cli.progress import JsonLines
from lattq.progress import Several, Stage, stage


class Recorder:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.begun: list[Stage] = []
        self.open: list[Stage] = []
        self.steps: list[tuple[Stage, str]] = []

    def begin(self, stage: Stage) -> None:
        """Note that a stage is open; its parent is the innermost open one."""
        assert stage.parent is (self.open[-1] if self.open else None)
        self.begun.append(stage)
        self.open.append(stage)

    def advance(self, stage: Stage, what: str) -> None:
        """Note a step of an open stage."""
        assert stage in self.open
        self.steps.append((stage, what))

    def end(self, stage: Stage) -> None:
        """Close the innermost stage."""
        assert self.open.pop() is stage

    def check(self) -> None:
        """Everything has ended, and counts agree with the steps told."""
        assert not self.open
        for each in self.begun:
            assert each.done == sum(one is each for one, _ in self.steps)
            assert each.total is None or each.done <= each.total


trees = st.recursive(st.integers(0, 3), lambda inner: st.lists(inner, max_size=3), max_leaves=12)


def work(tree: int | list, inside: Stage | Recorder | Several | None) -> int:
    """Walk a tree of stages whose leaves are numbers of steps; how many stages there were."""
    steps = range(tree) if isinstance(tree, int) else tree
    with stage("node", len(steps), inside=inside) as here:
        return 1 + sum(0 if isinstance(tree, int) else work(step, here) for step in here.over(steps))


@given(trees)
def test_an_observer_hears_the_tree(tree: int | list):
    first, second = Recorder(), Recorder()
    count = work(tree, Several((first, second)))
    for seen in (first, second):
        seen.check()
        assert len(seen.begun) == count
        assert all(one.done == one.total for one in seen.begun)


def test_a_stage_ends_when_its_work_fails():
    seen = Recorder()
    with contextlib.suppress(ZeroDivisionError), stage("outer", inside=seen) as outer, outer.stage("inner"):
        _ = 1 / 0
    assert len(seen.begun) == 2
    assert not seen.open


@given(trees)
def test_lines_of_json_tell_the_same(tree: int | list):
    seen, stream = Recorder(), io.StringIO()
    work(tree, Several((seen, JsonLines(stream))))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert sum(line["event"] == "begin" for line in lines) == sum(line["event"] == "end" for line in lines)
    assert sum(line["event"] == "begin" for line in lines) == len(seen.begun)
    assert sum(line["event"] == "advance" for line in lines) == len(seen.steps)
    assert all(line["seconds"] >= 0 for line in lines)


def test_without_an_observer_stages_still_count():
    with stage("work", 2) as here:
        assert list(here.over([1, 2])) == [1, 2]
    assert here.done == 2
