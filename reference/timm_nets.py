"""ViT and ConvNeXt with the parameter names and shapes that timm's models have, written from their papers, where timm is not at hand."""
import torch
import torch.nn.functional as functional
from torch import nn


class Attention(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        batch, tokens, channels = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, channels))


class Mlp(nn.Module):
    def __init__(self, channels, layer):
        super().__init__()
        self.fc1, self.fc2 = layer(channels, 4 * channels), layer(4 * channels, channels)

    def forward(self, x):
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, channels, heads):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(channels, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(channels, heads), Mlp(channels, nn.Linear)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VitTiny(nn.Module):
    """vit_tiny_patch16_224"""

    def __init__(self, channels=192, blocks=12, heads=3, classes=1000):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 197, channels))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, channels, 16, 16)
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(blocks))
        self.norm, self.head = nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, classes)

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of channels that come before height and width."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    def __init__(self, channels, convolutions):
        super().__init__()
        self.conv_dw = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = (ChannelNorm if convolutions else nn.LayerNorm)(channels, eps=1e-6)
        self.mlp = Mlp(channels, (lambda a, b: nn.Conv2d(a, b, 1)) if convolutions else nn.Linear)
        self.gamma, self.convolutions = nn.Parameter(torch.ones(channels)), convolutions

    def forward(self, x):
        y = self.conv_dw(x)
        if self.convolutions:
            y = self.mlp(self.norm(y))
        else:
            y = self.mlp(self.norm(y.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return x + y * self.gamma.view(1, -1, 1, 1)


class ConvNext(nn.Module):
    """convnext_atto (whose dense layers are convolutions) and convnext_tiny"""

    def __init__(self, blocks, widths, convolutions, classes=1000):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], eps=1e-6))
        self.stages = nn.ModuleList()
        for stage, (count, width) in enumerate(zip(blocks, widths)):
            part = nn.Module()
            before = widths[stage - 1]
            part.downsample = nn.Identity() if stage == 0 else nn.Sequential(ChannelNorm(before, eps=1e-6), nn.Conv2d(before, width, 2, 2))
            part.blocks = nn.Sequential(*(ConvNextBlock(width, convolutions) for _ in range(count)))
            self.stages.append(part)
        self.head = nn.Module()
        self.head.norm, self.head.fc = ChannelNorm(widths[-1], eps=1e-6), nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage.blocks(stage.downsample(x))
        return self.head.fc(self.head.norm(x.mean((2, 3), keepdim=True)).flatten(1))


NETS = {
    "vit_tiny": VitTiny,
    "convnext_atto": lambda: ConvNext((2, 2, 6, 2), (40, 80, 160, 320), True),
    "convnext_tiny": lambda: ConvNext((3, 3, 9, 3), (96, 192, 384, 768), False),
}
