"""One model on disk or on the hub: a folder with `config.json` and `model.safetensors`."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch import nn

from vqvae2.configuration import Json, from_dict, to_dict
from vqvae2.files import read_json, write_bytes, write_json
from vqvae2.messages import one_line

VERSION = 3
"""Of the format of all models: the names of weights and the fields of configurations."""

MAX_LAYERS = 1000
MAX_NUMBER = 2**31

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


def save_module(
    folder: Path,
    name: str,
    config: Mapping[str, Json],
    module: nn.Module,
    exact: Collection[str] | None = None,
) -> None:
    """Writes weights, then the config that makes them valid, into `folder`.

    Arguments:
        folder: is made.
        name: of the format.
        config: of the module.
        module: whose state is written.
        exact: names of the tensors that keep their type, while the others are written in half
            precision; None writes all as they are.
    """
    from safetensors.torch import save

    tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
    if exact is not None:
        tensors = {
            key: value.half() if value.is_floating_point() and key not in exact else value
            for key, value in tensors.items()
        }
    write_bytes(folder / "model.safetensors", save(tensors, {"format": "pt"}))
    write_json(folder / "config.json", name, VERSION, config)


def read_config(folder: Path, name: str, kind: type[T]) -> T:
    """The config that `save_module` wrote."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} does not contain a {name}: {path.name} is missing.")
    remedy = "use the version that wrote it, or train again"
    return from_dict(kind, read_json(path, name, VERSION, remedy), str(folder))


def load_module(folder: Path, build: Callable[[], M], config: object) -> M:
    """The model that `build` makes from `config`, with the folder's weights, in eval mode.

    Memory of the model's size is allocated only once the weights are known to fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    outline, path = build_outline(build, config, str(folder)), folder / "model.safetensors"
    try:
        tensors = load_file(path)
        outline.load_state_dict(tensors, assign=True)
        module = build()
        module.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = one_line(error)[:300]
        raise ValueError(f"{path} does not contain this model's weights: {reason}") from None
    # Train mode, which the hub's own loaders have returned before, would apply dropout.
    return module.eval()


def build_outline(build: Callable[[], M], config: object, where: str) -> M:
    """The model that `build` makes from `config`, without memory for its tensors.

    Arguments:
        build: makes the model.
        config: a dataclass, possibly from an untrusted file; its numbers are checked first.
        where: the name of the configuration in messages.

    Raises:
        ValueError: the configuration does not describe a model.
    """
    require_bounded(to_dict(config), where)
    try:
        with torch.device("meta"):
            return build()
    except ValueError:
        raise
    except Exception as error:  # layers raise errors of many types for invalid numbers
        reason = one_line(error)[:200]
        raise ValueError(f"{where} does not describe a model: {reason}.") from None


def require_bounded(config: Json, where: str) -> None:
    """Raises ValueError for numbers beyond 31 bits or more than `MAX_LAYERS` layers or blocks."""
    if isinstance(config, Mapping):
        fields = list(config.items())
    elif isinstance(config, list):
        fields = [(str(index), value) for index, value in enumerate(config)]
    else:
        return
    for name, value in fields:
        require_bounded(value, f"{where}.{name}")
        is_depth = name.endswith(("layers", "blocks", "scales"))
        limit = MAX_LAYERS if is_depth else MAX_NUMBER
        if isinstance(value, int) and abs(value) > limit:
            raise ValueError(f"{where}.{name} must be at most {limit}, got {str(value)[:20]}.")


def download(name: str, expected: str = "a folder of `save_pretrained`") -> Path:
    """The folder of a model from the hub, cached.

    Arguments:
        name: such as owner/model.
        expected: what else could have been named, for the message.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{name} is not a folder, and the hub did not provide a model of this name "
            f"({reason}); expected {expected}, or a name such as owner/model."
        ) from None


def upload(save: Callable[[Path], None], name: str, private: bool = False) -> str:
    """Uploads what `save` writes into a folder as a model of the hub.

    Arguments:
        save: writes the files.
        name: such as owner/model; the model is made if it does not exist.
        private: of a new model.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        with TemporaryDirectory() as folder:
            save(Path(folder))
            commit = api.upload_folder(repo_id=name, folder_path=folder)
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        reason = one_line(error)[:200]
        raise ValueError(
            f"{name} was not uploaded ({reason}); log in with `hf auth login` and use a name such "
            "as owner/model."
        ) from None
    return str(commit.commit_url)
