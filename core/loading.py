"""How many workers may load the model at the same time."""

from pathlib import Path

import psutil

BIG_MODEL_BYTES = 4 * 1024**3  # from here on loading is bound by disk and host memory


def loads_at_once(setting: int | str, model: str, workers: int) -> int:
    """The number of loads that fit into half of the free host memory; big models go one by one.

    Args:
        setting: a number, or `auto`.
        model: its folder; of a hub model, the one that it was fetched to.
    """
    if isinstance(setting, int):
        return min(setting, workers)
    folder = Path(model)
    if not folder.is_dir():
        return workers if model == "simulated" else 1
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    if size >= BIG_MODEL_BYTES:
        return 1
    fitting = psutil.virtual_memory().available // 2 // max(size, 1)
    return max(1, min(workers, fitting))
