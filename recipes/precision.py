"""Mixed precision: what the recipe key `amp` means on a device."""

import torch


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the processor has bfloat16 arithmetic of its own; without it, bfloat16 is emulated and slow."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def resolve_amp(amp: str, device: torch.device) -> str:
    """What `amp` means on a device, without "auto": that is bf16 where it is native, else off."""
    if amp != "auto":
        return amp
    return "bf16" if computes_in_bf16(device) else "off"


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """The type that convolutions and linear layers compute in, None for float32."""
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[resolve_amp(amp, device)]


def amp_name(dtype: torch.dtype | None) -> str:
    """Its short name: fp32, bf16 or fp16."""
    return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
