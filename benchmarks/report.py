"""Time of the report's intervals, and against a loop over draws: `python -m benchmarks.report`."""

import statistics
import time

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from benchmarks.record import record
from covidtf import metrics
from covidtf.metrics import intervals, thresholds

# As many test images as the DeepCovid paper has, and as many networks.
IMAGES, POSITIVES, NETWORKS = 3100, 100, 4
DRAWS = 2000
THRESHOLD = 0.5
ROUNDS = 3
# Of the loop, which is the same work in each draw.
LOOP_DRAWS = 100


def main() -> None:
    """Measure both numbers and append them to the table."""
    tables = [make(seed) for seed in range(NETWORKS)]
    print(f"largest difference of a draw to scikit-learn's: {difference(tables[0], 20):.1e}")
    seconds, ratios = measure(tables)
    what = f"AUROC, AP and threshold metrics, {DRAWS} draws, {IMAGES} images, {NETWORKS} networks"
    record("report_intervals_seconds", seconds, "s", what)
    record("report_intervals_vs_loop", statistics.median(ratios), "x", f"scikit-learn draw by draw, {what}")


def make(seed: int) -> pd.DataFrame:
    """Predictions of test; two images of each patient on average, scores that overlap."""
    generator = np.random.default_rng(seed)
    positive = np.arange(IMAGES) < POSITIVES
    score = 1 / (1 + np.exp(-generator.normal(3.0 * positive - 2.0, 1.5)))
    patient = np.random.default_rng(0).integers(IMAGES // 2, size=IMAGES)
    rows = {
        "image_id": [f"s/{number}" for number in range(IMAGES)],
        # A patient has images of one class.
        "patient_id": [f"s:{number}-{label}" for number, label in zip(patient, positive, strict=True)],
        "label": np.where(positive, "COVID-19", "non-COVID"),
        "score_COVID-19": score,
        "score_non-COVID": 1 - score,
    }
    columns = {"case_id": "", "source": "s", "view": "PA", "finding": "", "split": "test"}
    return pd.DataFrame(rows).assign(**columns)


def measure(tables: list[pd.DataFrame]) -> tuple[float, list[float]]:
    """Median seconds of all tables, and of each round the loop's time over ours."""
    ours, ratios = [], []
    for number in range(ROUNDS):
        start = time.perf_counter()
        for table in tables:
            report(table)
        middle = time.perf_counter()
        loop(tables[0], LOOP_DRAWS)
        whole = (time.perf_counter() - middle) * DRAWS / LOOP_DRAWS * len(tables)
        ours.append(middle - start)
        ratios.append(whole / ours[-1])
        times = f"{ours[-1]:.2f} s, loop {whole:.0f} s (out of {LOOP_DRAWS} draws)"
        print(f"round {number + 1}: {times}, {ratios[-1]:.1f} x")
    return statistics.median(ours), ratios


def report(table: pd.DataFrame) -> dict[str, dict]:
    """All metrics of one run with their intervals."""
    found = {"auroc": metrics.auroc(table, draws=DRAWS)}
    found["average_precision"] = metrics.average_precision(table, draws=DRAWS)
    return found | thresholds.at_threshold(table, THRESHOLD, draws=DRAWS)


def loop(table: pd.DataFrame, draws: int) -> np.ndarray:
    """AUROC, average precision, sensitivity, specificity, PPV, NPV and accuracy, draw by draw."""
    positive, score = (table["label"] == "COVID-19").to_numpy(), table["score_COVID-19"].to_numpy()
    names, patient = np.unique(table["patient_id"].to_numpy(str), return_inverse=True)
    images = np.split(np.argsort(patient, kind="stable"), np.cumsum(np.bincount(patient))[:-1])
    rows = []
    for counts in np.concatenate(list(intervals.patient_draws(len(names), draws, seed=0))):
        drawn = np.concatenate([images[number] for number in np.repeat(np.arange(len(names)), counts)])
        label, own = positive[drawn], score[drawn]
        (tn, fp), (fn, tp) = confusion_matrix(label, own >= THRESHOLD)
        areas = [roc_auc_score(label, own), average_precision_score(label, own)]
        rows.append(
            [*areas, tp / (tp + fn), tn / (tn + fp), tp / (tp + fp), tn / (tn + fn), (tp + tn) / len(own)]
        )
    return np.array(rows)


def difference(table: pd.DataFrame, draws: int) -> float:
    """Largest difference of the AUROC of a draw between the loop and `metrics`."""
    return float(np.abs(loop(table, draws)[:, 0] - metrics.auroc_draws(table, draws=draws)[1]).max())


if __name__ == "__main__":
    main()
