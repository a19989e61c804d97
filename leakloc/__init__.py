"""leakloc: where is the leak?

Reads a spine MR study with heavily T2-weighted myelography, finds cerebrospinal fluid
outside the dura, and names the vertebral level. Research use only; not a medical device.
"""

__version__ = "0.1.0"
