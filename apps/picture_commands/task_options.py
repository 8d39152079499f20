"""The options that multiply, change, name and choose tasks."""

import argparse

from apps.prompts.picture_names import PictureNames
from apps.prompts.selection import chosen
from apps.prompts.settings import loras_of, read_changes, read_grid, seed_axis
from apps.prompts.variants import Variants, with_alternatives
from apps.prompts.words import Words
from apps.record_filter import conditions_of
from core.errors import InputError
from core.intake.task_kinds import Inputs
from core.multi_gpu_image_generator import MultiGPUImageGenerator
from core.paths import as_text
from core.seeds import RANDOM
from core.settings import Settings


def multiplied(
    options: argparse.Namespace, settings: Settings, inputs: Inputs, words: Words
) -> Inputs:
    """Inputs with what the command line sets, and in all variants that it asks for."""
    texts = {
        name: [as_text(x) for x in getattr(options, name) or ()] for name in ("grid", "set", "lora")
    }
    axes = read_grid(texts["grid"], words)
    seeds = options.seeds
    changes = read_changes(texts["set"], words)
    if options.from_png and options.seed is not None and seeds is None:
        if options.seed == RANDOM:
            changes["seed"] = RANDOM
        else:
            seeds = str(options.seed)
    if seeds is not None:
        if any("seed" in axis[0].fields for axis in axes):
            raise InputError("--seeds and --grid seed=… are one setting: give one of them.")
        axes = [seed_axis(seeds, "--seeds"), *axes]
    loras = loras_of(texts["lora"])
    if loras and {"lora_path", "loras"} & changes.keys():
        raise InputError("--lora and --set lora=… are one setting: give one of them.")
    if options.alternatives:
        inputs = with_alternatives(inputs, settings.seed, words.wording)
    changes = {**changes, **loras}
    if axes or changes:
        inputs = Variants(inputs, axes, changes, settings.seed, words.thing)
    if options.picture_name is not None:
        suffix, pattern = settings.workers.picture_suffix, as_text(options.picture_name)
        inputs = PictureNames(inputs, pattern, words, suffix, settings.seed)
    return inputs


def chosen_of(
    options: argparse.Namespace,
    settings: Settings,
    inputs: Inputs,
    generator: MultiGPUImageGenerator,
) -> Inputs:
    """The inputs that --only, --only-failed and --where leave."""
    conditions = conditions_of(options)
    only = dict.fromkeys(as_text(id) for id in options.only or ())
    records, folder = generator.records(), str(generator.output_folder)
    return chosen(inputs, records, folder, only, conditions, settings.seed)
