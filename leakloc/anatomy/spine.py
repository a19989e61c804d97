"""The spine of one study: canal of the myelogram, and network output of each image."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from leakloc.anatomy.canal import find_canal
from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.network import AnatomyOutputs
from leakloc.core.volume import Volume


@dataclass(frozen=True, eq=False)
class Spine:
    """Canal and anatomy of one study, used by segmentation, levels and localization.

    Both are computed at first use and kept: a stage that uses neither also runs on an image on
    which no canal is detected.

    Parameters
    ----------
    myelogram : Volume
        Fluid-sensitive volume of the spine, in any grid orientation and signal unit.
    anatomy : AnatomyOutputs, optional
        Output of the anatomy network for the images of the study.
    """

    myelogram: Volume
    anatomy: AnatomyOutputs = field(default_factory=AnatomyOutputs, repr=False)

    @cached_property
    def oriented(self) -> Volume:
        """The myelogram in LPS order."""
        return self.myelogram.oriented("LPS")

    @property
    def canal_probability(self) -> Volume:
        """Canal probability on the myelogram itself.

        That of a companion series is less accurate: it includes bright epidural fat, and the
        patient may have moved (three phantoms: Dice coefficient of the sac 0.960, against 0.977).
        """
        return self.anatomy.of(self.myelogram).canal

    @cached_property
    def centerline(self) -> Centerline:
        """Centerline of the canal on the myelogram, cranial to caudal.

        Raises
        ------
        AnalysisError
            If no spinal canal is detected.
        """
        return find_canal(self.oriented, self.canal_probability).centerline
