"""The model hub: pretrained weights with a quick and clear end where there are none; uploads."""

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from src.artifacts.files import sha256_file
from src.config import BackboneConfig
from src.errors import UserError
from src.tensor_files import first_line, read_tensors, state_dict_of

HUB_SECONDS = 6.0
HUB_FILES = ("model.safetensors", "pytorch_model.bin")

WAYS_OUT = (
    "ways out: --model effnet_lite0 (its ImageNet weights are installed, no network), --weights "
    "FILE (a .safetensors, .pth or .pt of this backbone), --no-pretrained (random start), or an HF "
    "cache folder that holds it (set HF_HOME)"
)


def hub_weights(
    config: BackboneConfig, image_size: int | None
) -> tuple[dict[str, Tensor], str, str]:
    """Return timm's pretrained weights of a backbone, from the HF cache or downloaded into it.

    Returns:
        The state dict under the net's own keys (its head drawn anew), the pretrained tag, and the
        SHA-256 of the file they came from (empty where timm downloads from elsewhere).

    Raises:
        UserError: there are none, or the hub cannot be reached; with the ways out.
    """
    import timm

    cfg = timm.get_pretrained_cfg(config.name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise UserError(f"timm has no pretrained weights for {config.name!r}; {WAYS_OUT}")
    arguments = {"num_classes": 1, **config.kwargs}
    if cfg.fixed_input_size and image_size is not None:
        arguments["img_size"] = image_size
    sha256 = ""
    if cfg.hf_hub_id:
        path = _hub_file(cfg.hf_hub_id, config.name)
        sha256 = sha256_file(path)
        tensors = state_dict_of(read_tensors(path), path)
        arguments["pretrained_cfg_overlay"] = {"state_dict": tensors}
    else:
        _check_reachable(str(cfg.url), config.name)
    try:
        # Through create_model, for it knows each architecture's own conversion of old keys.
        pretrained = timm.create_model(config.name, pretrained=True, **arguments)
    except Exception as error:
        raise UserError(
            f"loading timm's weights of {config.name!r} failed: {first_line(error)}; {WAYS_OUT}"
        ) from error
    return pretrained.state_dict(), f"{cfg.architecture}.{cfg.tag}", sha256


def _hub_file(repo: str, name: str) -> Path:
    """Return a weights file from the HF cache, downloaded into it where it is not there yet."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for file in HUB_FILES:
        cached = try_to_load_from_cache(repo, file)
        if isinstance(cached, str):
            return Path(cached)
    _check_reachable(f"{constants.ENDPOINT}/{repo}/resolve/main/{HUB_FILES[0]}", name)
    failed, reason = f"downloading the weights of {name!r} failed", ""
    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(repo, file))
        except EntryNotFoundError as error:
            reason = first_line(error)
        except Exception as error:
            raise UserError(f"{failed}: {first_line(error)}; {WAYS_OUT}") from error
    raise UserError(f"{failed}: {reason}; {WAYS_OUT}")


def _check_reachable(url: str, name: str) -> None:
    """Raise a UserError where a host gives no answer within `HUB_SECONDS`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    reasons = ["HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "no connection"]

    def ask() -> None:
        with contextlib.suppress(Exception):
            code = get_session().head(url, timeout=HUB_SECONDS).status_code
            # The hub's client would try these again and again, for three quarters of a minute.
            busy = code >= 500 or code in (407, 408, 429)
            reasons.append(f"HTTP {code}" if busy else "")

    if not constants.HF_HUB_OFFLINE:
        # getaddrinfo takes no time-out, so it runs where it can be left behind.
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(HUB_SECONDS)
    if reasons[-1]:
        raise UserError(
            f"the pretrained weights of {name!r} are not in the cache and the model hub "
            f"cannot be reached ({reasons[-1]}); {WAYS_OUT}"
        )


def push_files(repo: str, files: Mapping[str, Path], card: str, message: str) -> str:
    """Upload files, by their names there, in one commit to a private repository; return its URL.

    The repository (`USER/NAME`) is made where it is not there, with `card` as its README.md. What
    goes wrong (no login, no access, no network) is told as the library says it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"--push {repo}: want USER/NAME, a repository on the Hub")
    adds = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    adds.append(CommitOperationAdd("README.md", card.encode()))
    api = HfApi()
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        return str(api.create_commit(repo, adds, commit_message=message).commit_url)
    except Exception as error:  # the library, its HTTP client and the network have many of them
        raise UserError(
            f"--push {repo}: the Hub refused or cannot be reached ({first_line(error)}); what was "
            "merged is kept, and the same command tries again. `hf auth login` logs in"
        ) from error
