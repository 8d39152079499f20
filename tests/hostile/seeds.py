"""Good inputs of every reader, for fuzzers and tests to spoil."""

import json
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pillow_heif
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.pictures.source_images import CONTAINED, FORMATS
from core.settings import DEFAULT_FILE
from core.store.ledger import FILE_NAME, Entry, Ledger
from tests.icc_profiles import DISPLAY_P3, rgb_profile

TWEET = {
    "tweet_text": "t",
    "image_generation": {
        "positive_prompt": "a",
        "negative_prompt": "b",
        "lora_params": {"model_path": "a.safetensors", "strength": 1.0},
        "generation_params": {"width": 64, "height": 64, "steps": 2, "cfg": 1.0},
    },
    "output_path": "a.png",
    "task_id": "t",
}


def seeds(target: str) -> list[bytes]:
    match target:
        case "tweets":
            persona = {"version": "2.0", "persona": {"name": "M"}, "tweets": [TWEET]}
            return [_json(persona), _json([{"prompt": "a"}]), b'{"prompt": "a"}\n{"prompt": "b"}']
        case "prompts":
            return [
                b"# houses\na {red|blue} house\n\na boat\n",
                b'id,prompt,seed,size,lora,metadata\n1,"a, ""b""",7,64x64,x:0.5;y,"{""k"": 1}"\n',
                b"porch: a house\nboat: {prompt: a boat, seed: 3, loras: [{path: x}]}\n",
                "prompt;seed\na;1\n".encode("utf-16"),
            ]
        case "edits":
            return [
                b"a.png\n# none\nb.png;c.png\n",
                b'picture,instruction,seed,mask,lora\na.png,"a, ""b""",7,m.png,x:0.5;y\n',
                b"a.png: make it night\nb: {picture: [a.png, b.png], instruction: i, steps: 3}\n",
                _json({"instruction": "i", "edits": ["a.png", {"image": "b.png", "cfg": 2}]}),
            ]
        case "from_png":
            row = {"file_name": "a.png", "prompt": "a", "seed": 1, "loras": "[]", "model": "m"}
            return [picture("PNG"), picture("JPEG"), _json(row)]
        case "settings":
            return [DEFAULT_FILE.read_bytes(), b"seed: 7\nworkers: {max_resident_loras: 2}\n"]
        case "ledger":
            return [ledger()]
        case "lora":
            return [
                lora({"x.lora_A.weight": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})
            ]
        case "image":
            pillow_heif.register_heif_opener()
            deep = Image.linear_gradient("L").resize((8, 6)).convert("F")
            return [
                *(picture(kind) for kind in (*FORMATS, *CONTAINED)),
                *(picture(kind, profile=rgb_profile(DISPLAY_P3)) for kind in ("PNG", "TIFF")),
                _saved(deep, "TIFF"),
            ]
        case "provenance":
            return [picture("PNG"), _json({"fingerprint": "f", "task": {}})]
        case "pairs":
            return [_json({"input_file_name": "a.png", "instruction": "i", "category": "c"})]
        case "re_edit":
            row = {"subset": "s", "edit_instruction_en": "i", "original_image_path": "a.png"}
            return [_json([row]), _json([{**row, "src_img_b64": "aGVsbG8="}])]
        case _:
            return [
                b'{"score": [1], "reasoning": "r"}',
                b'<think>{"score": [1, 2]}</think>{"score": [3, 4], "reasoning": "a "b" c"}',
                b"{'reasoning': 'it's', 'score': [3, 4],}",
                b'{"a": 3, "b": 4, "reasoning": "cut',
            ]


def _json(data: object) -> bytes:
    return json.dumps(data).encode()


def lora(header: object, data: bytes = b"data") -> bytes:
    raw = header if isinstance(header, bytes) else _json(header)
    return len(raw).to_bytes(8, "little") + raw + data


def picture(kind: str, size: tuple[int, int] = (8, 6), profile: bytes | None = None) -> bytes:
    info = PngInfo()
    info.add_text("generate_task", '{"fingerprint": "f", "task": {}}')
    exif = Image.Exif()
    exif[0x0112] = 6
    tagged = {"icc_profile": profile} if profile else {}
    return _saved(Image.new("RGB", size, "red"), kind, pnginfo=info, exif=exif.tobytes(), **tagged)


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ledger() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        made = Ledger.open(Path(name))
        made.begin_batch(
            Entry(f"{i}.png", i, "t", f"{i}.png", "f", "done", {"prompt": "x"}) for i in range(9)
        )
        made.close()
        return (Path(name) / FILE_NAME).read_bytes()
