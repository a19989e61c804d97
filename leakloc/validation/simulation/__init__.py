"""Simulated contrast on real anatomy: studies with known epidural fluid from real T2 volumes.

`read_patient` reads a volume with its masks; `simulate` converts it to a myelogram with ground
truth. Report results from such studies as "simulated contrast on real anatomy".
"""

from leakloc.validation.simulation.patients import (
    DEVELOPMENT_PATIENTS,
    TEST_PATIENTS,
    Patient,
    list_patients,
    read_patient,
)
from leakloc.validation.simulation.study import (
    CAVEAT,
    SCENARIOS,
    SimulatedStudy,
    SimulationScenario,
    simulate,
)

__all__ = [
    "CAVEAT",
    "DEVELOPMENT_PATIENTS",
    "SCENARIOS",
    "TEST_PATIENTS",
    "Patient",
    "SimulatedStudy",
    "SimulationScenario",
    "list_patients",
    "read_patient",
    "simulate",
]
