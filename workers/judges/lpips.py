"""The judge that computes LPIPS, by torchmetrics, on a VGG16 or an AlexNet.

torchmetrics has the metric and its trained weights of each layer (version 0.1), and takes the
network from torchvision. Here the network is the judge's model: a checkpoint in safetensors whose
`features.N` are named as torchvision names them, such as timm/vgg16.tv_in1k. So it is loaded,
identified and kept as every model is, and torchvision is not needed.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchmetrics.functional.image import lpips
from transformers.utils import cached_file

from core.errors import InputError
from core.messages import Lease
from core.tasks import ScoreTask
from workers.judges.base import JudgeFamily
from workers.judges.embeddings import read_picture
from workers.judges.masks import outside_of
from workers.models.base import Product
from workers.torch_device import freeze

Name = Literal["vgg", "alex"]
WEIGHTS = "model.safetensors"
PREFIX = "features."
SMALLEST = 64  # pixels: below it AlexNet's last layers see nothing
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: pooling


class LpipsJudge(JudgeFamily):
    """Compares the edit with the source, and where the pair has them with the target, and with the
    source outside of the mask.

    Outside of a mask is measured as PIE-Bench does (arXiv:2310.01506): what the mask leaves free is
    black in both pictures, and the mean is over all of both.
    """

    def load(self) -> str:
        name, network = self._network()
        theirs = lpips._get_tv_model_features
        lpips._get_tv_model_features = lambda *_: network
        try:
            model = lpips._NoTrainLpips(pretrained=True, net=name, pnet_rand=True)
        finally:
            lpips._get_tv_model_features = theirs
        self.model = model.to(self.device, torch.float32)
        freeze(self.model)
        return f"LPIPS ({name})"

    def _network(self) -> tuple[Name, nn.Sequential]:
        """The name by which torchmetrics calls the network, and its layers with their weights.

        Raises:
            InputError: the checkpoint is no VGG16 and no AlexNet.
        """
        file = cached_file(self.spec.model, WEIGHTS, revision=self.spec.revision)
        found = {
            key.removeprefix(PREFIX): tensor.float()
            for key, tensor in load_file(str(file)).items()
            if key.startswith(PREFIX)
        }
        known: list[tuple[Name, nn.Sequential]] = [("vgg", _vgg16()), ("alex", _alexnet())]
        for name, network in known:
            wanted = {key: tensor.shape for key, tensor in network.state_dict().items()}
            if wanted == {key: tensor.shape for key, tensor in found.items()}:
                network.load_state_dict(found)
                return name, network
        raise InputError(
            f"judge.model: {self.spec.model_name} is no VGG16 and no AlexNet with torchvision's "
            f"names of layers; a judge of type lpips takes one, such as timm/vgg16.tv_in1k."
        )

    def run(self, leases: Sequence[Lease]) -> list[Product]:
        return [self._verdict(lease, lease.task) for lease in leases]  # their sizes differ

    def _verdict(self, lease: Lease, task: object) -> Product:
        assert isinstance(task, ScoreTask)
        edited = read_picture(lease, task.edited_image)
        source = read_picture(lease, task.source_images[0])
        scores = {"lpips_source": self._distance(edited, source)}
        if task.mask is not None:
            outside = outside_of(read_picture(lease, task.mask), source.size)
            if outside.any():  # else the edit may change everything
                scores["lpips_outside"] = self._distance(edited, source, outside)
        if task.target_images:
            target = read_picture(lease, task.target_images[0])
            scores["lpips_target"] = self._distance(edited, target)
        return self.verdict(scores, [])

    def _distance(
        self,
        edited: Image.Image,
        reference: Image.Image,
        counts: NDArray[np.bool_] | None = None,
    ) -> float:
        """LPIPS of two pictures; pixels that do not count are black in both."""
        if min(reference.size) < SMALLEST:
            raise InputError(
                f"LPIPS needs pictures of at least {SMALLEST} x {SMALLEST} pixels "
                f"(found {reference.width} x {reference.height})."
            )
        if edited.size != reference.size:
            edited = edited.resize(reference.size, Image.Resampling.BICUBIC)
        tensors = [self._tensor(edited), self._tensor(reference)]
        if counts is not None:
            kept = torch.from_numpy(counts).to(self.device)
            tensors = [tensor * kept for tensor in tensors]
        return float(self.model(*tensors, normalize=True).squeeze())

    def _tensor(self, image: Image.Image) -> torch.Tensor:
        """Values from 0 to 1 as [1, 3, height, width]."""
        values = torch.from_numpy(np.array(image.convert("RGB"), np.float32) / 255)
        return values.permute(2, 0, 1)[None].to(self.device)


def _vgg16() -> nn.Sequential:
    """Simonyan and Zisserman's network D, as torchvision numbers its layers."""
    layers: list[nn.Module] = []
    seen = 3
    for width in VGG16:
        if not width:
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(seen, width, 3, padding=1), nn.ReLU(inplace=False)]
        seen = width
    return nn.Sequential(*layers)


def _alexnet() -> nn.Sequential:
    """Krizhevsky's network of one column, as torchvision numbers its layers."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
