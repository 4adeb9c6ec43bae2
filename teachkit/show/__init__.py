"""What a learner looks at and touches: figures, sources, quizzes, exercises, explorers."""

from teachkit.show import plots
from teachkit.show.explorers import explore
from teachkit.show.journey import end, progress
from teachkit.show.pages import course_map, source
from teachkit.show.pictures import Picture, figure
from teachkit.show.predictions import quiz
from teachkit.show.reveals import reveal
from teachkit.show.rows import records
from teachkit.show.status import environment
from teachkit.show.tables import table
from teachkit.show.verdicts import check

__all__ = [
    "Picture",
    "check",
    "course_map",
    "end",
    "environment",
    "explore",
    "figure",
    "plots",
    "progress",
    "quiz",
    "records",
    "reveal",
    "source",
    "table",
]
