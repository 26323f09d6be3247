"""The five networks in PyTorch, with torchvision's names of parameters, for comparisons of numbers and speed.

Written from the architectures, because torchvision need not be installed. What they need is torch alone.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

NETWORKS = ("ResNet18", "ResNet50", "SqueezeNet1_0", "SqueezeNet1_1", "DenseNet121")


def build(network: str, classes: int) -> nn.Module:
    """Network from normalised RGB images `(n, 3, height, width)` to logits, parameters as torch draws them.

    Raises:
        ValueError: If `network` is none of `NETWORKS`.
    """
    if network not in NETWORKS:
        raise ValueError(f"`network` must be one of {list(NETWORKS)}. Received: {network!r}")
    if network.startswith("SqueezeNet"):
        return SqueezeNet(network, classes)
    if network == "DenseNet121":
        return DenseNet(classes)
    return ResNet((2, 2, 2, 2), 1, classes) if network == "ResNet18" else ResNet((3, 4, 6, 3), 4, classes)


class ResNet(nn.Module):
    """ResNet whose blocks widen `expansion` times: 1 makes basic blocks, 4 bottlenecks."""

    def __init__(self, depths: tuple[int, ...], expansion: int, classes: int):
        super().__init__()
        self.conv1, self.bn1 = _conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        inputs = 64
        for stage, depth in enumerate(depths):
            width, blocks = 64 * 2**stage, []
            for index in range(depth):
                stride = 2 if stage and not index else 1
                blocks.append(Block(inputs, width, expansion, stride))
                inputs = expansion * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Block(nn.Module):
    """Convolutions 3x3, 3x3 or 1x1, 3x3, 1x1, added to their input; the first 3x3 has the stride."""

    def __init__(self, inputs: int, width: int, expansion: int, stride: int):
        super().__init__()
        outputs = expansion * width
        kernels = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if expansion > 1:
            kernels = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        for index, kernel in enumerate(kernels, start=1):
            self.add_module(f"conv{index}", _conv(*kernel))
            self.add_module(f"bn{index}", nn.BatchNorm2d(kernel[1]))
        self.last, self.downsample = len(kernels), None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        around = x if self.downsample is None else self.downsample(x)
        for index in range(1, self.last + 1):
            x = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(x))
            if index == self.last:
                x = x + around
            x = functional.relu(x, inplace=True)
        return x


class SqueezeNet(nn.Module):
    """SqueezeNet1_0 or SqueezeNet1_1."""

    def __init__(self, network: str, classes: int):
        super().__init__()
        new = network == "SqueezeNet1_1"
        filters, kernel, pools = (64, 3, (2, 5, 8)) if new else (96, 7, (2, 6, 11))
        features, inputs = [nn.Conv2d(3, filters, kernel, 2), nn.ReLU(inplace=True)], filters
        squeezed = iter((16, 16, 32, 32, 48, 48, 64, 64))
        for index in range(2, 13):
            if index in pools:
                features.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            width = next(squeezed)
            features.append(Fire(inputs, width))
            inputs = 8 * width
        self.features = nn.Sequential(*features)
        head = (nn.Dropout(0.5), nn.Conv2d(inputs, classes, 1), nn.ReLU(inplace=True))
        self.classifier = nn.Sequential(*head, nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return self.classifier(self.features(x)).flatten(1)


class Fire(nn.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 ones side by side to eight times as many."""

    def __init__(self, inputs: int, squeezed: int):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, 4 * squeezed, 1)
        self.expand3x3 = nn.Conv2d(squeezed, 4 * squeezed, 3, padding=1)

    def forward(self, x):
        x = functional.relu(self.squeeze(x), inplace=True)
        parts = (self.expand1x1(x), self.expand3x3(x))
        return torch.cat([functional.relu(part, inplace=True) for part in parts], 1)


class DenseNet(nn.Module):
    """DenseNet121."""

    def __init__(self, classes: int):
        super().__init__()
        parts, channels = OrderedDict(conv0=_conv(3, 64, 7, 2), norm0=nn.BatchNorm2d(64)), 64
        parts |= OrderedDict(relu0=nn.ReLU(inplace=True), pool0=nn.MaxPool2d(3, 2, 1))
        for block, depth in enumerate((6, 12, 24, 16), start=1):
            layers = [(f"denselayer{i + 1}", DenseLayer(channels + 32 * i)) for i in range(depth)]
            parts[f"denseblock{block}"] = nn.Sequential(OrderedDict(layers))
            channels += 32 * depth
            if block < 4:
                parts[f"transition{block}"] = _transition(channels)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(parts)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        x = functional.relu(self.features(x), inplace=True)
        return self.classifier(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class DenseLayer(nn.Module):
    """Appends 32 channels to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), _conv(channels, 128, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), _conv(128, 32, 3)

    def forward(self, x):
        y = self.conv1(functional.relu(self.norm1(x), inplace=True))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y), inplace=True))], 1)


def _transition(channels: int) -> nn.Sequential:
    parts = OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True))
    parts |= OrderedDict(conv=_conv(channels, channels // 2, 1), pool=nn.AvgPool2d(2))
    return nn.Sequential(parts)


def _conv(inputs: int, filters: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, bias=False)
