"""Simulated contrast on real anatomy: studies with known extradural fluid from real T2 volumes.

`read_patient` reads a volume with its masks, `simulate` turns it into a myelogram of any contrast
with its truth. Figures from such studies are to be called "simulated contrast on real anatomy".
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
