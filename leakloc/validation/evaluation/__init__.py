"""Evaluation of results against ground truth."""

from leakloc.validation.evaluation.agreement import wilson_interval
from leakloc.validation.evaluation.annotation import (
    Annotation,
    annotation_from_analysis,
    annotation_from_fluid,
    read_case,
)
from leakloc.validation.evaluation.cases import Case, compare
from leakloc.validation.evaluation.cohort import Cohort
from leakloc.validation.evaluation.folders import evaluate_folders
from leakloc.validation.evaluation.phantoms import evaluate_phantoms
from leakloc.validation.evaluation.readers import (
    ReaderAgreement,
    evaluate_readers,
    readers_json,
    readers_text,
)
from leakloc.validation.evaluation.sheet import contact_sheet
from leakloc.validation.evaluation.simulated import SimulatedCohort, evaluate_simulated
from leakloc.validation.evaluation.spider import (
    SpiderCase,
    evaluate_spider,
    spider_json,
    spider_text,
)

__all__ = [
    "Annotation",
    "Case",
    "Cohort",
    "ReaderAgreement",
    "SimulatedCohort",
    "SpiderCase",
    "annotation_from_analysis",
    "annotation_from_fluid",
    "compare",
    "contact_sheet",
    "evaluate_folders",
    "evaluate_phantoms",
    "evaluate_readers",
    "evaluate_simulated",
    "evaluate_spider",
    "read_case",
    "readers_json",
    "readers_text",
    "spider_json",
    "spider_text",
    "wilson_interval",
]
