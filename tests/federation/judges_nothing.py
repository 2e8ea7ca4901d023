"""An installation in which nothing judges a job, to see what the wall alone holds."""

from __future__ import annotations


def judge_nothing() -> None:
    """Replace every judgement of this process by none; the order is that of the imports."""
    import mmar_runtime.policy.component_check
    import mmar_runtime.policy.mmar_check

    mmar_runtime.policy.component_check.component_check = lambda **_: lambda config: []
    mmar_runtime.policy.mmar_check.policy_checks = lambda mmar, policy: []

    import fl_client.task_limits

    fl_client.task_limits.mmar_problems = lambda site: ()
