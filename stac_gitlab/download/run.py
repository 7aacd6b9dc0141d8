"""The run loop: the tasks of all plans, run by one worker pool."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from stac_gitlab.download.options import AllOptions
from stac_gitlab.download.plan import ItemPlan, Planner
from stac_gitlab.download.pool import DownloadPool, HasSession
from stac_gitlab.download.progress import announce, open_progress
from stac_gitlab.download.report import AssetResult
from stac_gitlab.download.task import DownloadTask

_ITEMS_IN_TURN = 4


def run_plans(
    reader: HasSession,
    plans: Iterable[ItemPlan],
    planners: Collection[Planner],
    options: AllOptions,
    *,
    workers: int | None = None,
    queued: int = 1,
) -> dict[str, ItemPlan]:
    """Run the tasks of all plans; return the plans with their results, by name.

    Args:
        plans: Plans with different names. They are taken as they are needed.
        planners: The planners that make them.
        options: Checked options.
        workers: How many files to download at the same time; None for as many as pay.
        queued: How many tasks to take before a worker is free.
    """
    taken: dict[str, ItemPlan] = {}

    def take_plans() -> Iterator[ItemPlan]:
        for plan in plans:
            taken[plan.name] = plan
            if plan.has_failures and options["fail_fast"]:
                return
            announce(progress, {task.name: task.source.size for task in plan.tasks})
            if not plan.tasks:
                plan.write_item()
            yield plan

    def add_result(task: DownloadTask, result: AssetResult) -> None:
        taken[task.item_name].add_result(task, result)

    tasks = _in_turn(take_plans())
    with open_progress(None if options["dry_run"] else options["progress"]) as progress:
        if options["dry_run"]:
            for task in tasks:
                add_result(task, task.preview())
        else:
            pool = DownloadPool(
                reader,
                progress,
                workers=workers,
                executor=options["executor"],
                fail_fast=options["fail_fast"],
            )
            try:
                pool.run(tasks, add_result, queued=queued)
            finally:
                for planner in planners:
                    planner.remove_empty_folders()
    _complete(taken.values(), planners)
    return taken


def _complete(plans: Collection[ItemPlan], planners: Iterable[Planner]) -> None:
    for plan in plans:
        # Of those whose tasks were not all started.
        plan.write_item()
    if any(plan.report().downloaded for plan in plans):
        for planner in planners:
            planner.compact_records()


def _in_turn(plans: Iterable[ItemPlan]) -> Iterator[DownloadTask]:
    """Yield the tasks of a few items in turn, so that a large item does not delay small ones."""
    waiting = iter(plans)
    turns: deque[Iterator[DownloadTask]] = deque()
    while True:
        while len(turns) < _ITEMS_IN_TURN and (plan := next(waiting, None)) is not None:
            turns.append(iter(plan.tasks))
        if not turns:
            return
        turn = turns.popleft()
        task = next(turn, None)
        if task is not None:
            yield task
            turns.append(turn)
