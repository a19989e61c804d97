"""Patterns of series names of several vendors and languages.

Names may be missing, translated or incorrect, so `leakloc.loaders.triage` combines them with
sequence parameters and pixels. Patterns apply to `normalized` text.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_SEPARATORS: Final = re.compile(r"[_\-./\\^,;:()\[\]<>]+")


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


# `\b` would miss words adjacent to digits ("t2space", "lws3d"), so only letters are excluded.
_START: Final = r"(?<![^\W\d_])"
_END: Final = r"(?![^\W\d_])"

MYELOGRAPHY: Final = _words(
    r"m[iy]y?[eé]lo(?!m[ae]|pat|menin|c[eiy]l|fib|dys|dis|id|blast|mal|mén)"
    r"|mi[eé]lo ?(rm|graf)|\bmrm\b|\bht2w?\b|heav(y|ily) t2|hydro ?(mr|rm|myelo)|hidro ?rm"
    r"|sacc?o ?radicul|radiculograph|caudograph|миело(?!м|п|ф|ц)|ミエロ|脊髄腔|脊髓水成像"
    r"|椎管水成像|水成像|미엘로|척수강조영|μυελο(?!π)|میلو|تصوير النخاع"
)
"""Myelography; not myeloma, myelopathy or meningomyelocele."""

OTHER_HYDROGRAPHY: Final = _words(
    r"mrcp|ercp|\bmru\b|urogra|cholang|chol ?pan|biliar|sialo|inner ?ear|innenohr|\biac\b|\bcpa\b"
)
"""Other MR hydrography: bile ducts, urinary tract, inner ear."""

SINGLE_SHOT: Final = _words(
    r"\bhaste\b|\bssfse\b|\bss ?fse\b|ssh ?tse|\bfase\b|single ?shot|\bss tse\b|\brare\b"
    r"|^\*?h(r)?[23]d1|\*h(r)?[23]d1"
)
T2_3D: Final = _words(
    rf"{_START}(space|spcr?|cube|vista|3d ?view|mpv|iso ?fse|matrix|mx3d|brain ?view|spine ?view)"
    rf"{_END}|\*spc"
)
"""Variable-flip-angle 3D turbo spin echo."""

STEADY_STATE: Final = _words(
    r"\bciss\b|fiesta|\bb ?tfe\b|\bb ?ffe\b|balanced|true ?(fisp|ssfp)|\bb ?ssfp\b|trufi|\bpbsg\b"
    r"|\bbasg\b|\*?ci3d|\*?tfi[23]d"
)
STIR: Final = _words(rf"{_START}(t2)?stir{_END}|\btirm\b|\bir tse\b|\birfse\b|fast ?ir\b|\*?q?tir")
FAT_SUPPRESSED: Final = _words(
    r"\bfs\b|fat ?sat|\bspair\b|\bspir\b|spectral|\bchess\b|\bideal\b|dixon|\btirm\b|\bstir\b"
    r"|\bwater\b|\bfatsup|\bfett ?(sat|unterdr)|suppression graisse|\bwfs\b|t2fs\b"
)
NO_FAT_SUPPRESSION: Final = _words(
    r"\b(no|non|not|without|w ?o|ohne|sans|sin|senza|zonder) ?"
    r"(fs\b|fat ?(sat|sup)|spair\b|spir\b|fett ?sat|suppression)|\b(fs|fat ?sat) ?(off|aus)\b"
)
"""Fat suppression stated as absent."""
DIXON_PART: Final = _words(
    r"(dixon|ideal|flex|lava).*(\b(f|fat|in|ip|opp|op|in ?phase|out ?phase|opp? ?phase)$)"
    r"|^(fat|in ?phase|out ?phase): ?|^(fat|inphase|outphase) "
)
DIXON_WATER: Final = _words(r"\b(w|water)$|^water ")
FLUID_ATTENUATED: Final = _words(r"flair|dark ?fluid|tirm ?dark")
T1: Final = _words(rf"{_START}t1w?{_END}|\bt1 ?(tse|se|fse|flair|vibe)|vibe|mprage|\bbravo\b")
T2: Final = _words(rf"{_START}t2w?(?!\*){_END}|t2(tse|fse|space|spc|fs|stir|cube)|frfse|tse ?rst")
CONTRAST: Final = _words(
    r"\+ ?c\b|\bc\+|\bgd\b|gado|gad\b|\bpost ?(c|con|gd|km|iv)?\b|contrast|kontrast|contraste"
    r"|\bkm\b|\bce\b|\bpdc\b|\bc/c\b|с ?ку\b|контраст|增强|造影後|造影后|조영(?!술)"
)
INTRATHECAL: Final = _words(
    r"intra ?th?e[ck]al|intrathékal|\bit ?(gd|gad|kontrast|contrast)|\b(gd|gado?\w*) ?it\b"
    r"|\b(gd|gado?\w*) ?(mr ?)?myelo"
)
"""Contrast agent in the CSF (gadolinium myelography)."""
NO_CONTRAST: Final = _words(
    r"\bpre ?(c|con|gd|km|contrast)?\b|\bnativ|\bnon ?contrast|\bohne km|\bsans|\bw ?o\b|\bsin\b"
)
LOCALIZER: Final = _words(
    r"\blocs?\b|locali[sz]er|locator|\bloca?\b|scout|survey|\bsurv\b|3 ?plane|topogr|smart ?brain"
    r"|localizador|repérage|reperage|定位|локалайзер"
)
NOT_ANATOMY: Final = _words(
    r"calib|\basset\b|ref ?scan|\bb1 ?map|\bshim|\bdwi\b|\badc\b|\bdti\b|trace ?w|\bswi\b|\bperf"
    r"|\bep2d\b|\bbold\b|phoenix|\breport\b|screen ?save|key ?image|coil ?sens|t2 ?map|t1 ?map"
)
"""Calibration, diffusion, maps and documents."""

PROJECTION: Final = _words(
    r"\bmip\b|\bminip\b|\bproj(ection)?\b|\bradial\b|\brotat\w*|\btumble\b|\bcollapse\b"
    r"|\bpjn\b|\bvrt?\b|\bmpr\b|reformat\w*|\bcurved\b|\bcpr\b|thick ?slab"
)
"""Projections and reformats."""

SPINE: Final = _words(
    rf"{_START}[clth]?s?spines?{_END}|spine|spinal|lumb|lomb|sacr|thorac|thorak|\bdors|cervic"
    r"|zervik|wirbel|\b[lbh]ws\b|\bws\b|rachis|racchide|colonne|column|verteb|wervel|myel|miel"
    r"|\bcauda\b|позвон|поясн|лумб|脊|腰|胸椎|頸椎|颈椎|척추|요추|\b[ctl]\d ?[ctls]\d\b|\bsag ls\b"
)
BRAIN: Final = _words(
    rf"brain|{_START}head{_END}|\bskull|cranium|crani[ao](?!c)|schaedel|schädel|\bkopf|cerebr"
    r"|cerveau|encephal|encéph|cráneo|craneo|\btete\b|\btête\b|hirn|\bneurocr|head ?routine"
    r"|мозг|голов|頭部|头颅|颅脑|脳|뇌|pituit|sella|hypophys|orbit"
)
OTHER_BODY_PART: Final = _words(
    r"\bknee|\bknie|genou|rodilla|ginocchio|shoulder|schulter|epaule|épaule|hombro|ankle|\bwrist"
    r"|\belbow|\bfoot\b|\bhand\b|breast|\bmamma|prostat|\bcardiac|\bheart|\bliver\b|\bleber"
)

PLANES: Final = {
    "sagittal": _words(r"\bsag|矢状|сагит"),
    "axial": _words(r"\b(ax|axial|axi|tra|trans|transversal|tv|quer)\b|横断|轴位|аксиал"),
    "coronal": _words(r"\b(cor|coro|coronal|koronal|frontal)\b|冠状|корон"),
}


def is_dixon_part(*texts: str) -> bool:
    """Return whether the first text that names a part of a Dixon series names another than water.

    The name of the part is at an end of the series description, which other names may follow.
    """
    for text in texts:
        if DIXON_PART.search(text) or DIXON_WATER.search(text):
            return not DIXON_WATER.search(text)
    return False


def normalized(*texts: object) -> str:
    """Join texts, apply NFKC and case folding, and replace separators with spaces.

    Examples
    --------
    >>> normalized("T2_SPACE-Sag.p2", None, "MYÉLO")
    't2 space sag p2 myélo'
    """
    joined = " ".join(str(text) for text in texts if text)
    # NFC after folding recomposes Hangul syllables and accents.
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", joined).casefold())
    return " ".join(_SEPARATORS.sub(" ", folded).split())
