"""What a study cost: trials and hours, on processors and on GPUs."""

import pandas as pd

CPU = "cpu"
COLUMNS = ("work", "device", "trials", "training_hours", "cpu_hours", "gpu_hours")


def costs(work: str, trainings: pd.DataFrame) -> pd.DataFrame:
    """What trainings took, a row for each device.

    On a CPU a training has a core to itself, so its hours are those of a core. Trainings at the same time share a GPU:
    its hours are those in which a worker had at least one of them on it.

    Args:
        work: what they were for.
        trainings: one row each: trial_seconds, started, ended, device and worker.

    Returns:
        `COLUMNS`; cpu_hours or gpu_hours is NaN, and both are where the device is not known.
    """
    begun = trainings[trainings["trial_seconds"].notna()]
    rows = []
    for device, part in begun.groupby(begun["device"].fillna(""), sort=True):
        hours = float(part["trial_seconds"].astype(float).sum()) / 3600
        on_gpu = busy_hours(part) if device not in ("", CPU) else None
        rows.append((work, device or "not known", len(part), hours, hours if device == CPU else None, on_gpu))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COLUMNS[3:], float))


def busy_hours(trainings: pd.DataFrame) -> float:
    """The hours in which workers had at least one training, summed over the workers.

    Args:
        trainings: started, ended and worker.
    """
    total = pd.Timedelta(0)
    timed = trainings.dropna(subset=["started", "ended"]).sort_values("started")
    for _, part in timed.groupby(timed["worker"].fillna("")):
        until = part["started"].min()
        for start, end in zip(part["started"], part["ended"], strict=True):
            total += max(end - max(start, until), pd.Timedelta(0))
            until = max(until, end)
    return total / pd.Timedelta(hours=1)
