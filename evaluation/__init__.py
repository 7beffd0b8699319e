"""Judgement of surrogates: measures, comparisons, rollouts, break-even, reports."""

from sobolev.evaluation.comparison import evaluate
from sobolev.evaluation.judged import evaluate_run

__all__ = ["evaluate", "evaluate_run"]
