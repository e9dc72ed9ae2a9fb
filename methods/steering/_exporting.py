"""Export a steered model as plain weights, if possible, for programs that do not support edits, such as vLLM.

- `add` to every token is a bias of the layer's last linear map, which is added to the residual stream last. GPT-2,
  GPT-NeoX and OPT have one; Llama's architecture has one with `mlp_bias`, which is set, with zeros elsewhere.
- `ablate` of every token at every layer, at strength 1: the directions are removed from everything that writes to the
  residual stream, which is the embeddings and the last linear map of each attention and MLP (Arditi et al. 2024, arXiv
  2406.11717, section 4.1). There the part along the directions never arises, whereas the steered model removes it after
  each layer. So layers read slightly less: this is a stronger edit than the one that was measured, and has to be
  measured itself.

Everything else depends on the state or on the token, which weights cannot express.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from evenhand.errors import SettingsError
from evenhand.interfaces import Model
from evenhand.methods.steering._steered import Steered
from evenhand.models import adapters
from evenhand.models.asking import asked_alike
from evenhand.models.local import LocalModel

if TYPE_CHECKING:
    from evenhand.inference.activation_edits import ActivationEdit


class Writers(NamedTuple):
    """Names of the modules that write to the residual stream in an architecture."""

    embeddings: tuple[str, ...]
    """Names of embeddings in the model."""
    attention: str
    """Name of the attention's output map in a layer."""
    last: str
    """Name of the last linear map of a layer."""
    flag: str = ""
    """Configuration setting that gives the MLP's maps biases; "" if they always have them."""


WRITERS = {
    "llama": Writers(("model.embed_tokens",), "self_attn.o_proj", "mlp.down_proj", "mlp_bias"),
    "gpt2": Writers(("transformer.wte", "transformer.wpe"), "attn.c_proj", "mlp.c_proj"),
    "gpt_neox": Writers(("gpt_neox.embed_in",), "attention.dense", "mlp.dense_4h_to_h"),
    "opt": Writers(("model.decoder.embed_tokens", "model.decoder.embed_positions"), "self_attn.out_proj", "fc2"),
}
"""Writers by `model_type`."""


def export(model: Model, folder: str | Path) -> Path:
    """Write a steered model as weights that transformers and vLLM load, without evenhand.

    Args:
        model: Result of `steering`, also of several on top of one another.
        folder: Target folder.

    Returns:
        The folder.

    Raises:
        SettingsError: Weights cannot express the edit, or the architecture has no place for it; the message says why.
    """
    below, edits = _parted(model)
    module = below.weights.module
    kind = str(module.config.model_type)
    for edit in edits:
        if reason := unsupported_reason(kind, module, edit):
            raise SettingsError(f"{model.name} cannot be exported as weights: {reason}")
    made = adapters.merged(module)
    for edit in edits:
        _fold(made, WRITERS[kind], edit)
    out = LocalModel(made, below.weights.tokenizer, name=model.name, **asked_alike(below))
    out.training = model.training
    return out.save(folder)


def unsupported_reason(kind: str, module: Any, edit: ActivationEdit) -> str:
    """Return why an edit cannot be written into weights, or "" if it can.

    Args:
        kind: `model_type` of the module.
        module: The model without the edit.
        edit: The edit to write.
    """
    every = [one for edits in edit.layers.values() for one in edits]
    count = int(module.config.get_text_config().num_hidden_layers)
    if kind not in WRITERS:
        known = ", ".join(WRITERS)
        return f"models of the type {kind} have no bias after a layer's last linear map; these types do: {known}"
    if kind == "opt" and not (module.config.do_layer_norm_before and module.config.enable_bias):
        return "this OPT model normalises after its last linear map, or has no biases"
    if edit.scope != "all" or edit.skip_first:
        return "weights act on every token alike: steer with scope=all and skip_first=False"
    if any(one.gate is not None for one in every):
        return "a gate depends on the state of the token: steer with gate=none"
    if any(one.mode == "project" for one in every):
        return "operation=project depends on the state of the token; add and ablate are possible"
    if {one.mode for one in every} == {"add"}:
        return ""
    if any(one.mode == "add" for one in every) or len(edit.layers) < count or any(one.strength != 1 for one in every):
        return "weights can express ablation only at every layer and strength 1: steer with layer=all and strength=1"
    same = all(torch.equal(one.directions, every[0].directions) for one in every)
    return (
        ""
        if same
        else "every layer ablates directions of its own, and weights the same everywhere: give direction_layer"
    )


def _parted(model: Model) -> tuple[LocalModel, list[ActivationEdit]]:
    """Return the local model below, and all edits in their order."""
    edits: list[ActivationEdit] = []
    while isinstance(model, Steered):
        if model.gate is not None:
            raise SettingsError(f"{model.name} cannot be exported as weights: gate=prompt depends on the prompt")
        edits.insert(0, model.edit)
        model = model.base
    if not edits or not isinstance(model, LocalModel):
        raise SettingsError(
            f"{model.name} is not a steered model, so there is no edit to export: apply steering to a local model, and "
            "save models with prompts around them with model.save(folder)"
        )
    if any(name.startswith("load_in_") and on for name, on in model.load_options.items()):
        raise SettingsError(f"{model.name} is quantised, and its weights cannot hold an edit; load it without")
    return model, edits


def _fold(module: Any, writers: Writers, edit: ActivationEdit) -> None:
    from evenhand.inference.decoder_layers import decoder_layers
    from evenhand.inference.edited_rows import orthonormal

    layers = decoder_layers(module)
    some = next(iter(edit.layers.values()))[0]
    if some.mode == "ablate":
        _ablate(module, layers, writers, orthonormal(some.directions))
        return
    if writers.flag and not module.config.to_dict()[writers.flag]:
        _give_biases(layers, writers)
        module.config.update({writers.flag: True})
    for layer, edits in edit.layers.items():
        bias = layers[layer].get_submodule(writers.last).get_parameter("bias")
        for one in edits:
            added = one.directions[0].double() * one.strength
            bias.data.copy_((bias.data.double().cpu() + added).to(bias))


def _give_biases(layers: nn.ModuleList, writers: Writers) -> None:
    """Add zero biases to all linear maps of each MLP, which the configuration can only have together."""
    path = writers.last.rpartition(".")[0]
    for layer in layers:
        for part in layer.get_submodule(path).children():
            if isinstance(part, nn.Linear) and part.bias is None:
                part.bias = nn.Parameter(part.weight.new_zeros(part.out_features))


def _ablate(module: Any, layers: nn.ModuleList, writers: Writers, basis: Tensor) -> None:
    """Remove the span of a basis, [rank, hidden] float64, from everything that is written."""
    adapters.untie(module)  # the head reads, and is not changed
    for name in writers.embeddings:
        weight = module.get_submodule(name).weight
        weight.data.copy_(_without(weight.data, basis, -1))
    for layer in layers:
        for name in (writers.attention, writers.last):
            part = layer.get_submodule(name)
            weight = part.get_parameter("weight")
            outputs = 0 if isinstance(part, nn.Linear) else 1  # GPT-2's maps store their inputs first
            weight.data.copy_(_without(weight.data, basis, outputs))
            bias = dict(part.named_parameters()).get("bias")
            if bias is not None:
                bias.data.copy_(_without(bias.data, basis, 0))


def _without(tensor: Tensor, basis: Tensor, dimension: int) -> Tensor:
    """Remove from a tensor's vectors along a dimension their part in the span of a basis."""
    rows = tensor.double().cpu().movedim(dimension, -1)
    return (rows - (rows @ basis.T) @ basis).movedim(-1, dimension).to(tensor)
