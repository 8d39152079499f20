"""What the names of scores mean, in the words that stand below a table."""

from collections.abc import Sequence

MEANINGS = {
    "SC": "semantic consistency: was done what was asked, and nothing else",
    "PQ": "perceptual quality: is the edited picture sound",
    "consistency": "is what was not asked for as it was",
    "instruction": "was done what was asked",
    "knowledge": "does the result agree with what is known of the world",
    "quality": "does the edited picture look sound",
    "reasoning": "does the edited picture show what had to be worked out",
    "accuracy": "100 where every rating of a pair is full, else 0",
    "following": "reward for how exactly the instruction was followed",
    "text_image": "cosine similarity of instruction and edited picture",
    "image_image": "cosine similarity of source and edited picture",
    "clip_t": "cosine similarity of instruction and edited picture, by CLIP",
    "clip_t_caption": "cosine similarity of the right result's caption and edited picture, by CLIP",
    "clip_dir": "cosine similarity of the change from caption to caption and that from source to "
    "edited picture, by CLIP",
    "prompt_following": "was done what was asked, whoever is shown",
    "instruction_following": "was done what was asked",
    "identity_preservation": "is what was not asked for as it was",
    "perceptual_quality": "is the edited picture sound",
    "subject_consistency": "are people, things and scene those of the sources",
}
"""By name; `explain` adds the overall score, which depends on what it is made of."""
VIESCORE = {"SC", "PQ"}
OVERALL = "O"


def explain(names: Sequence[str]) -> list[str]:
    """One line for each score whose meaning is known, in the order of the columns."""
    return [f"{name}: {said}" for name in names if (said := meaning(name, names))]


def meaning(name: str, names: Sequence[str]) -> str | None:
    """What one score of a judge means; None where that is not known.

    Args:
        names: all scores of that judge.
    """
    if name != OVERALL or name in MEANINGS:
        return MEANINGS.get(name) or _metric(name)
    parts = [other for other in names if other not in (OVERALL, "accuracy")]
    if set(parts) == VIESCORE:
        return "overall, sqrt(SC * PQ) of each pair"
    return f"overall, of each pair's {', '.join(parts)}" if parts else None


METRICS = {
    "l1": "mean absolute difference of pixels, 0 to 1",
    "l2": "mean squared difference of pixels, 0 to 1",
    "psnr": "peak signal-to-noise ratio in dB, 100 where nothing differs",
    "ssim": "structural similarity",
    "clip_i": "cosine similarity of pictures, by CLIP",
    "dino": "cosine similarity of pictures, by DINO",
    "lpips": "how unlike the pictures look, by LPIPS; 0 is the same",
}
AGAINST = {
    "source": "to the source",
    "target": "to the target",
    "outside": "to the source, outside of the mask",
}


def is_better_lower(name: str) -> bool:
    """Whether less of a score is better: differences are, similarities and ratings are not."""
    metric, _, end = name.rpartition("_")
    return metric in ("l1", "l2", "lpips") and end in AGAINST


def decimals(name: str) -> int:
    """Digits after the point that tell two values of a score apart: more for shares of 1."""
    metric = name.rpartition("_")[0]
    small = name in ("text_image", "image_image", "clip_t", "clip_t_caption", "clip_dir") or (
        metric in METRICS and metric != "psnr" and _metric(name) is not None
    )
    return 4 if small else 2


def _metric(name: str) -> str | None:
    """What a metric is, and with what it compares the edit."""
    metric, _, end = name.rpartition("_")
    if metric not in METRICS or end not in AGAINST:
        return None
    return f"{METRICS[metric]}, {AGAINST[end]}"
