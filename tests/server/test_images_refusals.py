"""What the Images API refuses: one clear error each, in OpenAI's envelope, and nothing is drawn."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from starlette.testclient import TestClient

from apps.server.app import create_app
from apps.server.journal import Journal
from apps.server.service import Service
from apps.server.settings import load_server_settings
from core import MultiGPUImageGenerator
from core.devices.edit_models import DEMO_EDITOR
from tests.conftest import simulated
from tests.inline_backend import InlineBackend
from tests.server.image_clients import data_url, mask, png

DRAW, EDIT = "/v1/images/generations", "/v1/images/edits"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of an application in this process, whose workers are in it, too."""
    folder = tmp_path_factory.mktemp("server")
    settings = load_server_settings(
        simulated(
            editor={"model": "simulated"},
            server={"images": {"max_pixels": 512 * 512, "quality": {"generations": {"low": 2}}}},
        )
    )
    generator = MultiGPUImageGenerator(
        1, config=settings, output_dir=folder, backend=InlineBackend(), tables=False
    )
    app = create_app(Service(generator, Journal(folder), settings.server))
    with TestClient(app) as client:
        yield client
        assert not list(folder.rglob("*.png"))


def refused(answer: httpx2.Response, status: int = 400) -> tuple[str | None, str]:
    """The parameter and the code of an error, whose form is checked."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and error["message"].strip()
    return error["param"], error["code"]


@pytest.mark.parametrize(
    ("said", "param", "code"),
    [
        ({"style": "vivid"}, "style", "unknown_parameter"),
        ({"svg": {"model": "x"}}, "svg", "unknown_parameter"),
        ({"frame_count": 4}, "frame_count", "unknown_parameter"),
        ({"frame_duration_ms": 100}, "frame_duration_ms", "unknown_parameter"),
        ({"complexity": "high"}, "complexity", "unknown_parameter"),
        ({"input_fidelity": "high"}, "input_fidelity", "unknown_parameter"),
        ({"prompt_rewriter": "x"}, "prompt_rewriter", "unknown_parameter"),
        ({"negativ_prompt": None}, "negativ_prompt", "unknown_parameter"),
        ({"output_path": "/etc/passwd"}, "output_path", "unknown_parameter"),
        ({"lora_path": "/x.safetensors"}, "lora_path", "unknown_parameter"),
        ({"images": ["x"]}, "images", "unknown_parameter"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"prompt": "  "}, "prompt", "invalid_value"),
        ({"prompt": 7}, "prompt", "invalid_type"),
        ({"prompt": ["a", "b"]}, "prompt", "invalid_type"),
        ({"prompt": "x" * 32_001}, "prompt", "string_above_max_length"),
        ({"prompt": "a\0b"}, "prompt", "invalid_value"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 11}, "n", "integer_above_max_value"),
        ({"n": "2"}, "n", "invalid_type"),
        ({"n": True}, "n", "invalid_type"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"size": "1000x1000"}, "size", "invalid_value"),
        ({"size": "big"}, "size", "invalid_value"),
        ({"size": "8x8"}, "size", "invalid_value"),
        ({"size": "512x528"}, "size", "invalid_value"),
        ({"size": "99999999x16"}, "size", "invalid_value"),
        ({"quality": "high"}, "quality", "invalid_value"),
        ({"quality": "best"}, "quality", "invalid_value"),
        ({"quality": "low", "num_inference_steps": 3}, "num_inference_steps", "invalid_value"),
        ({"background": "transparent"}, "background", "invalid_value"),
        ({"response_format": "bytes"}, "response_format", "invalid_value"),
        ({"output_format": "svg"}, "output_format", "invalid_value"),
        ({"output_format": "gif"}, "output_format", "invalid_value"),
        ({"output_compression": 50}, "output_compression", "invalid_value"),
        ({"output_compression": 101}, "output_compression", "integer_above_max_value"),
        ({"moderation": "none"}, "moderation", "invalid_value"),
        ({"user": 5}, "user", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream": True, "partial_images": 4}, "partial_images", "integer_above_max_value"),
        ({"partial_images": 1}, "partial_images", "invalid_value"),
        ({"stream": True, "response_format": "url"}, "response_format", "invalid_value"),
        ({"seed": -2}, "seed", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"num_inference_steps": 0}, "num_inference_steps", "integer_below_min_value"),
        ({"guidance_scale": -1}, "guidance_scale", "integer_below_min_value"),
        ({"guidance_scale": 1, "true_cfg_scale": 2}, "true_cfg_scale", "invalid_value"),
        ({"loras": "snow"}, "loras", "invalid_type"),
        ({"loras": ["snow"]}, "loras[0].name", "lora_not_found"),
        ({"loras": [{"name": "snow", "path": "/x"}]}, "loras[0].path", "unknown_parameter"),
        ({"loras": [{"name": "snow", "strength": 11}]}, "loras[0].strength",
         "integer_above_max_value"),
        ({"loras": ["snow"] * 17}, "loras", "array_above_max_length"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(
    said: dict[str, Any], param: str, code: str, client: httpx2.Client
) -> None:
    answer = client.post(DRAW, json={"prompt": "a house", **said})
    assert refused(answer) == (param, code)


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{", "application/json", "invalid_json"),
        (b"[]", "application/json", "invalid_json"),
        (b'{"prompt": "a", "guidance_scale": NaN}', "application/json", "invalid_json"),
        (b"[" * 100_000, "application/json", "invalid_json"),
        (b"\xff\xfe", "application/json", "invalid_json"),
        (b'{"prompt": "a", "n": ' + b"9" * 10_000 + b"}", "application/json", "invalid_json"),
        (b"prompt=a", "application/x-www-form-urlencoded", "unsupported_content_type"),
        (b'{"prompt": "a"}', "", "unsupported_content_type"),
    ],
    ids=range(8),
)
def test_a_body_that_is_no_json_object_is_refused(
    body: bytes, content_type: str, code: str, client: httpx2.Client
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    assert refused(client.post(DRAW, content=body, headers=headers)) == (None, code)


def test_models_that_are_not_served_are_unknown_in_the_words_of_openai(
    client: httpx2.Client,
) -> None:
    for answer in (
        client.post(DRAW, json={"prompt": "a", "model": "dall-e-3"}),
        client.post(EDIT, json={"prompt": "a", "model": "dall-e-3", "images": ["x"]}),
        client.get("/v1/models/dall-e-3"),
    ):
        assert refused(answer, 404) == ("model", "model_not_found")
        message = answer.json()["error"]["message"]
        assert message == "The model `dall-e-3` does not exist or you do not have access to it."


def test_the_model_of_another_kind_of_task_is_named(client: httpx2.Client) -> None:
    judge = next(m for m in client.get("/v1/models").json()["data"] if m["kinds"] == ["score"])
    answer = client.post(DRAW, json={"prompt": "a", "model": judge["id"]})
    assert refused(answer) == ("model", "model_not_supported")
    assert "'simulated'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("data", "names", "param", "code"),
    [
        ({"prompt": "a"}, [], "image", "missing_required_parameter"),
        ({}, ["image"], "prompt", "missing_required_parameter"),
        ({"prompt": "a"}, ["image"] * 17, "image", "array_above_max_length"),
        ({"prompt": "a"}, ["image", "mask"], "mask", "invalid_image"),
        ({"prompt": "a"}, ["image", "mask", "mask"], "mask", "duplicate_parameter"),
        ({"prompt": "a"}, ["image", "mask[]"], "mask", "unknown_parameter"),
        ({"prompt": "a", "mask": "file-1"}, ["image"], "mask", "image_not_found"),
        ({"prompt": "a"}, ["image", "markup"], "markup", "unknown_parameter"),
        ({"prompt": "a"}, ["picture"], "picture", "unknown_parameter"),
        ({"prompt": "a"}, ["images"], "images", "unknown_parameter"),
        ({"prompt": "a"}, ["image", "prompt"], "prompt", "unknown_parameter"),
        ({"prompt": "a", "n": "two"}, ["image"], "n", "invalid_type"),
        ({"prompt": "a", "svg[model]": "x"}, ["image"], "svg", "unknown_parameter"),
        ({"prompt": "a", "input_fidelity": "low"}, ["image"], "input_fidelity",
         "unknown_parameter"),
        ({"prompt": "a", "moderation": "auto"}, ["image"], "moderation", "unknown_parameter"),
        ({"prompt": "a", "loras": "snow"}, ["image"], "loras", "invalid_value"),
        ({"prompt": "a", "loras[][name]": ["a", "b"], "loras[][strength]": ["1"]}, ["image"],
         "loras", "invalid_value"),
        ({"prompt": ["a", "b"]}, ["image"], "prompt", "duplicate_parameter"),
    ],
    ids=str,
)  # fmt: skip
def test_a_form_that_cannot_be_is_refused_by_name(
    data: dict[str, Any], names: list[str], param: str, code: str, client: httpx2.Client
) -> None:
    files = [(name, png()) for name in names]
    answer = client.post(EDIT, data=data, files=files or {"x": (None, "")})
    if not files:  # a form without files is no multipart form by itself
        assert refused(answer)[1] in ("unknown_parameter", code)
        return
    assert refused(answer) == (param, code)


@pytest.mark.parametrize(
    ("said", "param", "code"),
    [
        ({}, "images", "missing_required_parameter"),
        ({"images": []}, "images", "array_below_min_length"),
        ({"images": ["x"] * 17}, "images", "array_above_max_length"),
        ({"images": [{}]}, "images[0]", "invalid_value"),
        ({"images": [{"image_url": "a", "file_id": "b"}]}, "images[0]", "invalid_value"),
        ({"images": [{"path": "/etc/passwd"}]}, "images[0].path", "unknown_parameter"),
        ({"images": [5]}, "images[0]", "invalid_type"),
        ({"image": "x"}, "image", "unknown_parameter"),
        ({"images": ["x"], "mask": 7}, "mask", "invalid_type"),
        ({"images": ["x"], "mask": {}}, "mask", "invalid_value"),
        ({"images": [data_url(png())], "mask": {"file_id": "file-1"}}, "mask", "image_not_found"),
        ({"images": [data_url(png())], "mask": "x"}, "mask", "invalid_image_url"),
    ],
    ids=str,
)
def test_json_for_an_edit_that_cannot_be_is_refused_by_name(
    said: dict[str, Any], param: str, code: str, client: httpx2.Client
) -> None:
    answer = client.post(EDIT, json={"prompt": "make it blue", **said})
    assert refused(answer) == (param, code)


def opaque() -> bytes:
    stream = BytesIO()
    Image.new("RGBA", (48, 32), (0, 0, 0, 255)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (mask(size=(48, 33))[1], "it has 48 x 33 pixels and the first picture 48 x 32"),
        (mask(clear=0)[1], "no pixel of it is fully transparent"),
        (opaque(), "no pixel of it is fully transparent"),
        (mask()[1][:-40], "damaged or cut short"),
        (b"GIF89a", "no picture that is read here"),
    ],
    ids=["size", "nowhere", "opaque", "cut", "none"],
)
def test_a_mask_that_fits_no_picture_is_refused(
    given: bytes, said: str, client: httpx2.Client
) -> None:
    files = [("image", png()), ("image", png((0, 0, 0))), ("mask", ("m.png", given, "image/png"))]
    answer = client.post(EDIT, data={"prompt": "a"}, files=files)
    assert refused(answer) == ("mask", "invalid_image")
    assert said in answer.json()["error"]["message"]
    assert "inbox" not in answer.text


def test_a_model_that_takes_no_mask_says_so_of_an_edit_with_one(tmp_path: Path) -> None:
    settings = load_server_settings(simulated(editor={"model": str(DEMO_EDITOR)}))
    generator = MultiGPUImageGenerator(
        1, config=settings, output_dir=tmp_path, backend=InlineBackend(), tables=False
    )
    with TestClient(create_app(Service(generator, Journal(tmp_path), settings.server))) as client:
        [model] = [m for m in client.get("/v1/models").json()["data"] if "edit" in m["kinds"]]
        assert model["takes_masks"] is False
        form = [("image", png()), ("mask", mask())]
        json_body = {"prompt": "a", "images": ["x"], "mask": "y"}
        for answer in (
            client.post(EDIT, data={"prompt": "a"}, files=form),
            client.post(EDIT, json=json_body),
        ):
            assert refused(answer) == ("mask", "unsupported_parameter")
            assert "takes no mask: say in the prompt" in answer.json()["error"]["message"]


def test_a_form_without_its_boundary_is_refused(client: httpx2.Client) -> None:
    answer = client.post(EDIT, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert refused(answer) == (None, "invalid_form")


@pytest.mark.parametrize("name", ["x.png", "AAAA.png", "é.png", "a" * 4000 + ".png", ".png"])
def test_an_address_that_was_not_given_out_leads_nowhere(name: str, client: httpx2.Client) -> None:
    assert refused(client.get(f"/pictures/{name}"), 404)[1] == "picture_not_found"


def test_the_document_says_what_the_routes_take(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    draws = paths[DRAW]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"prompt", "n", "size", "seed", "loras"} <= draws["properties"].keys()
    form = paths[EDIT]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"]["format"] == "binary"
    assert "$ref" not in json.dumps([draws, form])


def test_where_only_the_editor_cannot_be_used_pictures_are_drawn_and_edits_refused(
    tmp_path: Path,
) -> None:
    settings = load_server_settings(simulated(editor={"model": str(tmp_path / "nowhere")}))
    generator = MultiGPUImageGenerator(
        1, config=settings, output_dir=tmp_path / "out", backend=InlineBackend(), tables=False
    )
    app = create_app(Service(generator, Journal(tmp_path / "out"), settings.server))
    with TestClient(app) as client:
        answer = client.post(EDIT, json={"prompt": "make it blue", "images": ["x"]})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "model_unavailable"
        kinds = [model["kinds"] for model in client.get("/v1/models").json()["data"]]
        assert kinds == [["generate"], ["score"]]
        assert client.post(DRAW, json={"prompt": "a house"}).status_code == 200
