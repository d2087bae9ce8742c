r"""VTAB-1k as data, and its two averages. Zhai et al., "A Large-scale Study of Representation Learning with
the Visual Task Adaptation Benchmark", 2019, arXiv:1910.04867: 19 classification tasks with 1000 training
images each, 800 to train on and 200 to choose by.

$$ \text{benchmark: } \frac{1}{19} \sum_t A_t \qquad
   \text{papers on parameter-efficient tuning: } \frac13 \sum_g \frac{1}{|g|} \sum_{t \in g} A_t $$

over tasks t and groups g of 7, 4 and 8 tasks. The two do not order methods alike: of SSF and NOAH, each is
ahead in one.

RESULTS are of a ViT-B/16, as listed by V-PETL Bench (Xin et al., 2024, its public table): mean accuracy of
each group in %, and trained parameters in millions without the head. Which of them were chosen on the test
set, as FacT's code does, the table does not say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# number of classes of each task
GROUPS: dict[str, dict[str, int]] = {
    "natural": {
        "CIFAR-100": 100,
        "Caltech101": 102,
        "DTD": 47,
        "Flowers102": 102,
        "Pets": 37,
        "SVHN": 10,
        "Sun397": 397,
    },
    "specialised": {"Camelyon": 2, "EuroSAT": 10, "Resisc45": 45, "Retinopathy": 5},
    "structured": {
        "Clevr count": 8,
        "Clevr distance": 6,
        "DMLab": 6,
        "KITTI distance": 4,
        "dSprites location": 16,
        "dSprites orientation": 16,
        "sNORB azimuth": 18,
        "sNORB elevation": 9,
    },
}


@dataclass(frozen=True)
class Result:
    """Mean accuracies of the groups in %, and trained parameters in millions."""

    natural: float
    specialised: float
    structured: float
    parameters: float

    @property
    def groups(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in GROUPS}

    @property
    def group_mean(self) -> float:
        """What papers on parameter-efficient tuning call the average: every group counts the same."""
        return sum(self.groups.values()) / len(GROUPS)

    @property
    def task_mean(self) -> float:
        """The benchmark's own: every task counts the same."""
        total = sum(mean * len(GROUPS[name]) for name, mean in self.groups.items())
        return total / sum(map(len, GROUPS.values()))


RESULTS: dict[str, Result] = {
    "Full": Result(75.89, 83.38, 47.64, 85.8),
    "Linear": Result(68.93, 77.15, 26.85, 0.0),
    "BitFit": Result(73.30, 78.25, 44.10, 0.10),
    "VPT-Shallow": Result(76.81, 79.67, 46.98, 0.08),
    "VPT-Deep": Result(78.49, 82.42, 55.00, 0.56),
    "Adapter": Result(79.01, 84.08, 58.49, 0.16),
    "AdaptFormer": Result(80.56, 84.88, 58.83, 0.16),
    "LoRA": Result(79.49, 84.55, 59.78, 0.29),
    "SSF": Result(81.57, 86.55, 58.96, 0.21),
    "NOAH": Result(80.26, 84.88, 61.30, 0.43),
    "FacT": Result(80.64, 85.30, 60.71, 0.07),
}


def result(accuracies: Mapping[str, float], parameters: float) -> Result:
    """The result of a method from its accuracies in % on all 19 tasks, named as in GROUPS."""
    expected = {task for tasks in GROUPS.values() for task in tasks}
    if unlike := sorted(expected ^ accuracies.keys()):
        raise ValueError(f"VTAB-1k has 19 tasks, each once; missing or unknown: {', '.join(unlike)}.")
    means = {name: sum(accuracies[task] for task in tasks) / len(tasks) for name, tasks in GROUPS.items()}
    return Result(**means, parameters=parameters)
