"""The exercises' inputs, right answers and known mistakes, one module per lesson."""

from teachkit.show.tasks import hessian, masks, start, taylor

TASKS = start.TASKS | hessian.TASKS | taylor.TASKS | masks.TASKS
