"""Upload of weights to the Hugging Face Hub, by its own library."""

from collections.abc import Mapping
from pathlib import Path

from src.errors import UserError
from src.tensor_files import first_line


def push_files(repo: str, files: Mapping[str, Path], card: str, message: str) -> str:
    """Upload files in one commit to a private repository, which is made where it is not there.

    Args:
        repo: `USER/NAME`.
        files: name in the repository -> file.
        card: its README.md.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        UserError: no login, no access, no network: with what the library says.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"--push {repo}: want USER/NAME, a repository on the Hub")
    adds = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    adds.append(CommitOperationAdd("README.md", card.encode()))
    api = HfApi()
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        done = api.create_commit(repo, adds, commit_message=message)
    except Exception as error:  # the library, its HTTP client and the network have many of them
        raise UserError(
            f"--push {repo}: the Hub refused or cannot be reached ({first_line(error)}); what was "
            "merged is kept, and the same command tries again. `hf auth login` logs in"
        ) from error
    return str(done.commit_url)
