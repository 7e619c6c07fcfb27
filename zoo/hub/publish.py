"""Push a run as one commit, and pull a published checkpoint with all its files."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo

from ..checkpoint import WEIGHTS
from ..errors import ZooError
from ..files import user_path
from .card import LICENSE, card, eval_results
from .errors import ask, check_repo
from .fetch import fetch_repository, split_revision
from .release import EVAL_RESULTS, RESULT, RESULTS, collect

ORGANISATION = "snn-zoo"
"""Where the zoo's own checkpoints are published, each as ORGANISATION/architecture.tag."""


class Pushed(NamedTuple):
    """What `push` did: the repository, its commit, whether that commit is new, and the entry of published.json."""

    repo: str
    commit: str
    changed: bool
    published: dict[str, dict[str, str]]


class Pulled(NamedTuple):
    """What `pull` did: the directory, the commit it holds, and the pickles of the repository that it left there."""

    directory: Path
    commit: str
    left_out: list[str]


def push(
    run: str | os.PathLike[str],
    repo: str | None = None,
    *,
    private: bool = False,
    onnx: Sequence[str | os.PathLike[str]] = (),
    results: Sequence[str | os.PathLike[str]] = (),
    license: str | None = None,
) -> Pushed:
    """Publish a run as one commit: weights, config, recipe, log, results, ONNX files and a model card.

    The commit is made of all files or of none, on top of the commit that was looked at; what has not changed is not
    sent again, and if nothing has, there is no commit. ONNX and result files of earlier, other weights leave with it.

    Args:
        run: see `zoo.hub.release.collect`.
        repo: ORG/NAME; ORGANISATION/architecture.tag by default. Made if it is not there.
        private: make it private; an existing public one is refused.
        onnx, results: further files, see `zoo.hub.release.collect`.
        license: what the card says, an identifier of the Hub's; by default what config.json does, or else apache-2.0.

    Raises:
        ZooError: a file is missing, broken or of other weights; a bad name; no access, no connection, no answer.
    """
    release = collect(user_path(run), [user_path(path) for path in onnx], [user_path(path) for path in results])
    stated = release.config["pretrained_cfg"].get("license")
    license = license or stated or LICENSE
    if not isinstance(license, str) or not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise ZooError(f"no license of the Hub's is called {license!r}: give apache-2.0, mit, cc-by-4.0, other ...")
    if stated not in (None, license):
        raise ZooError(f"{run}'s config.json says license {stated!r}: the card cannot say {license!r}")
    repo = check_repo(repo or f"{ORGANISATION}/{release.name}")
    files = release.files | {EVAL_RESULTS + name: text.encode() for name, text in eval_results(release).items()}
    files["README.md"] = card(release, repo, license).encode()
    api = HfApi(library_name="snn-zoo")
    before = ask(repo, lambda: _look(api, repo, private), cached=False)

    def commit() -> str:
        now = api.model_info(repo, files_metadata=True, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        # Made anew for each try: the client notes in them what it has already sent.
        operations: list[Any] = [CommitOperationAdd(name, data) for name, data in sorted(files.items())]
        operations += [CommitOperationDelete(name) for name in _outdated(now, files, release.config["weights_sha256"])]
        done = api.create_commit(repo, operations, commit_message=release.name, parent_commit=now.sha)
        return str(done.oid)

    oid = ask(repo, commit, cached=False)
    entry = {"repo": repo, "revision": oid, "sha256": release.config["weights_sha256"]}
    return Pushed(repo, oid, oid != before.sha, {release.name: entry})


def pull(name: str, directory: str | os.PathLike[str] | None = None, *, revision: str | None = None) -> Pulled:
    """Copy a published checkpoint with all its files into a directory, which is whole or absent afterwards.

    Args:
        name: ORG/NAME[@REVISION].
        directory: must not exist, or be empty; NAME in the working directory by default.
        revision: a branch, a tag or a commit, if `name` has none.

    Raises:
        ZooError: see `zoo.hub.fetch.fetch_repository`.
    """
    repo, revision = split_revision(name, revision)
    out = user_path(directory) if directory is not None else Path(repo.split("/")[1])
    commit, left_out = fetch_repository(repo, out, revision=revision)
    return Pulled(out, commit, left_out)


def _look(api: HfApi, repo: str, private: bool) -> ModelInfo:
    """The repository as it is, made first if it is not there."""
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        info = api.model_info(repo, timeout=timeout)
    except RepositoryNotFoundError:
        api.create_repo(repo, private=private or None, exist_ok=True)
        info = api.model_info(repo, timeout=timeout)
    if private and not info.private:
        raise ZooError(f"{repo} exists and is public: make it private in its settings, or push without --private")
    return info


def _outdated(info: ModelInfo, files: dict[str, bytes], weights_sha256: str) -> list[str]:
    """Files of a repository that speak of the weights that it holds now, if these are about to be replaced."""
    siblings = info.siblings or []
    if any(s.rfilename == WEIGHTS and s.lfs and s.lfs.sha256 == weights_sha256 for s in siblings):
        return []
    old = [s.rfilename for s in siblings if s.rfilename not in files]
    about_weights = RESULTS, EVAL_RESULTS
    return [name for name in old if name.endswith(".onnx") or name == RESULT or name.startswith(about_weights)]
