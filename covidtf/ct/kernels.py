"""Which reconstruction kernels show lung, told by their names."""

import re
from collections.abc import Iterable

# Names that the makers give to their sharp chest kernels, as they stand in headers of public chest CT
# collections. No maker publishes one list of all of them, so a lung kernel that is missing here counts as
# "other", which only matters between two series of equal thickness.
_LUNG = {
    "Siemens": r"B(?:[67]\d|80)[fhs]?|Bl(?:5[67]|6\d)[fhs]?|I(?:[67]\d|80)[fhs]?",
    "GE": r"LUNG",
    "Philips": r"L|Y[A-D]?",
    "Canon and Toshiba": r"FC5[0-6]|FC8[1-6]|LUNG(?:[ _-]?(?:STANDARD|SHARP))?",
    "United Imaging": r"B_V?SHARP(?:_\w)?|LUNG(?:_\w+)*",
    "Neusoft": r"LUNG ?[A-E\d]?|L[A-E]",
}
_PATTERN = re.compile("|".join(f"(?:{pattern})" for pattern in _LUNG.values()), re.IGNORECASE)


def kernel_of(names: Iterable[str]) -> str:
    """Kind of kernel from the values of ConvolutionKernel (Siemens adds the strength: `I70f\\3`).

    Args:
        names: Values of the field, possibly none.
    Returns:
        `"lung"`, `"other"` or `"unknown"` (no name).

    >>> kernel_of(["I70f", "3"]), kernel_of(["STANDARD"]), kernel_of([])
    ('lung', 'other', 'unknown')
    """
    names = [name.strip() for name in names if name.strip()]
    if not names:
        return "unknown"
    return "lung" if any(_PATTERN.fullmatch(name) for name in names) else "other"
