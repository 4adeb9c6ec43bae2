"""What a learner looks at and touches: figures, sources, quizzes, exercises, explorers."""

from teachkit.show import plots, scenes, scenes_paradox
from teachkit.show.exercises import check
from teachkit.show.explorers import explore
from teachkit.show.pictures import Picture, figure
from teachkit.show.quizzes import quiz
from teachkit.show.sources import source
from teachkit.show.status import environment

__all__ = [
    "Picture",
    "check",
    "environment",
    "explore",
    "figure",
    "plots",
    "quiz",
    "scenes",
    "scenes_paradox",
    "source",
]
