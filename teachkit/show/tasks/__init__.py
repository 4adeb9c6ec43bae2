"""The exercises' inputs, right answers and known mistakes, one module per lesson."""

from teachkit.show.tasks import (
    fisher,
    hessian,
    magnitude,
    masks,
    neurons,
    obd,
    obs,
    paradox,
    schedule,
    start,
    structured,
    taylor,
)

TASKS = (
    start.TASKS
    | hessian.TASKS
    | taylor.TASKS
    | masks.TASKS
    | obd.TASKS
    | obs.TASKS
    | fisher.TASKS
    | magnitude.TASKS
    | schedule.TASKS
    | structured.TASKS
    | paradox.TASKS
    | neurons.TASKS
)
