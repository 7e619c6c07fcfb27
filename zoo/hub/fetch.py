"""From a Hub to this disk: checkpoints and whole repositories, through huggingface_hub's cache, every file checked.

A branch or tag is first resolved to its commit, and all files are taken from that one: no mixture of two versions, and
a download that fails leaves the version that the cache already had.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

from ..checkpoint import CONFIG, WEIGHTS, is_pickle, read_checkpoint, read_config
from ..checkpoint.weights import starts_as_pickle
from ..errors import ZooError
from ..files import sha256_of
from .errors import BrokenDownloadError, ask, check_repo

_COMMIT = re.compile("[0-9a-f]{40}")
# One part of a path: no separators, no drive, nothing hidden from the eye; names starting with a dot are fine.
_PART = re.compile(r"[\w.+@=,()-][\w .+@=,()-]*", re.ASCII)


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """ORG/NAME[@REVISION] into its two parts, the second None for the default branch.

    Raises:
        ZooError: no repository's name, or two different revisions.
    """
    repo, sign, given = name.partition("@")
    if sign and (not given or (revision and revision != given)):
        raise ZooError(f"{name!r} with the revision {revision!r}: name one revision, as in ORG/NAME@v1")
    return check_repo(repo), given or revision or None


def fetch_checkpoint(name: str, *, cache_dir: str | Path | None = None) -> Path:
    """The directory in the cache that holds a checkpoint of the Hub, fetched if need be.

    Args:
        name: ORG/NAME[@REVISION], the revision a branch, a tag or a commit.
        cache_dir: instead of huggingface_hub's own.

    Raises:
        ZooError: no such repository, revision or file; no access; no connection and nothing in the cache; a file that
            is not what the Hub announces. See `zoo.hub.errors`.
    """
    repo, revision = split_revision(name)
    answered = ask(repo, lambda: _commit_of(repo, revision), revision)
    # Out of reach: what the cache has under that name, or the error of having nothing.
    commit = answered or _cached_commit(repo, revision, cache_dir)
    commit = commit or _fetch(repo, CONFIG, revision, cache_dir).parent.name
    _fetch(repo, CONFIG, commit, cache_dir)
    folder = _fetch(repo, WEIGHTS, commit, cache_dir).parent
    if answered:
        _note(repo, revision, commit, cache_dir)
    return folder


def fetch_repository(name: str, directory: Path, *, revision: str | None = None) -> tuple[str, list[str]]:
    """Copy a repository of the Hub that holds a checkpoint into `directory`, which is whole or absent afterwards.

    Args:
        name: ORG/NAME[@REVISION].
        directory: must not exist, or be empty.
        revision: a branch, a tag or a commit, if `name` has none.

    Returns:
        The commit, and the files that were left out because they are pickles.

    Raises:
        ZooError: see `fetch_checkpoint`; also a file name that leads out of the directory, a directory that is in use,
            or a repository without a sound checkpoint.
    """
    repo, revision = split_revision(name, revision)
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise ZooError(f"{directory} exists already: remove it, or name another directory with -o")
    if directory.resolve() == Path.cwd():
        raise ZooError(f"{directory} is the working directory, and would be replaced: name a new one with -o")
    commit, names = ask(repo, lambda: _look(repo, revision), revision, cached=False)
    for file in names:
        check_name(file, repo)
    pickles = [file for file in names if is_pickle(file)]
    if missing := {WEIGHTS, CONFIG} - set(names):
        raise ZooError(f"{repo} holds no checkpoint of the zoo: it lacks {' and '.join(sorted(missing))}")
    directory = directory.resolve()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as temporary:
            whole = Path(temporary) / directory.name  # for itself: the folder around it is for its owner's eyes only
            # Each is checked before the next is fetched: it may be another library's, with gigabytes beside it.
            checks = {CONFIG: lambda: read_config(whole / CONFIG), WEIGHTS: lambda: read_checkpoint(whole)}
            for file in [*checks, *(name for name in names if not is_pickle(name) and name not in checks)]:
                source = _fetch(repo, file, commit, None)
                (whole / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, whole / file)
                if file in checks:
                    try:
                        checks[file]()
                    except ZooError as error:
                        raise ZooError(str(error).replace(str(whole), repo)) from error
                elif starts_as_pickle(whole / file):
                    (whole / file).unlink()
                    pickles.append(file)
            os.replace(whole, directory)
    except OSError as error:
        raise ZooError(f"cannot write {directory}: {error.strerror or error}") from error
    _note(repo, revision, commit, None)
    return commit, pickles


def _note(repo: str, revision: str | None, commit: str, cache_dir: str | Path | None) -> None:
    """Let the cache know, for offline use, that a branch or tag stands for `commit`, unless it has moved since."""
    if commit != revision:
        with contextlib.suppress(ZooError):  # the files are all there, whatever the Hub answers now
            if ask(repo, lambda: _commit_of(repo, revision), revision) == commit:
                _fetch(repo, CONFIG, revision, cache_dir)  # nothing to download


def _look(repo: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit that a revision stands for now, and the names of its files."""
    info = HfApi().model_info(repo, revision=revision, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
    names = [sibling.rfilename for sibling in info.siblings or []]
    if not _COMMIT.fullmatch(info.sha or "") or not all(isinstance(name, str) for name in names):
        raise TypeError(f"commit {info.sha!r}")
    return str(info.sha), names


def check_name(file: str, repo: str) -> None:
    """Raise ZooError if the name of a file in a repository would lead anywhere but below the repository's folder."""
    parts = file.split("/")
    if not all(_PART.fullmatch(part) for part in parts) or {".", "..", ".git"} & {p.lower() for p in parts}:
        raise ZooError(f"{repo} holds a file with a forbidden name: {file!r}; nothing of it was written")


def _commit_of(repo: str, revision: str | None) -> str | None:
    """The commit that a revision stands for now; None if the Hub cannot be asked."""
    if revision and _COMMIT.fullmatch(revision):
        return revision
    try:
        commit = get_hf_file_metadata(hf_hub_url(repo, CONFIG, revision=revision)).commit_hash
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError):
        raise
    except (errors.HTTPError, OSError):
        return None
    return commit if commit and _COMMIT.fullmatch(commit) else None


def _cached_commit(repo: str, revision: str | None, cache_dir: str | Path | None) -> str | None:
    """The commit that a revision stood for when the cache last saw it; None if it never did."""
    try:
        path = hf_hub_download(repo, CONFIG, revision=revision, cache_dir=cache_dir, local_files_only=True)
        return Path(path).parent.name
    except errors.LocalEntryNotFoundError:
        return None


def _fetch(repo: str, file: str, revision: str | None, cache_dir: str | Path | None) -> Path:
    def fetch() -> Path:
        path = hf_hub_download(repo, file, revision=revision, cache_dir=cache_dir, library_name="snn-zoo")
        return _verified(Path(path), f"{repo}/{file}")

    return ask(repo, fetch, revision, cache_dir=cache_dir)


def _verified(path: Path, what: str) -> Path:
    """A file of the cache whose content is what its name there says; one that is not is removed.

    The client compares sizes only. In the cache, a file's blob is named by its ETag: the sha256 of a large file, git's
    hash of a small one.
    """
    # One step only: the blob itself may be a link into storage that is shared under other names.
    blob = path.parent / os.readlink(path) if path.is_symlink() else path
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        digest = sha256_of(blob)
    elif _COMMIT.fullmatch(blob.name):
        start = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
        with open(blob, "rb") as content:
            digest = hashlib.file_digest(content, lambda: start).hexdigest()
    else:
        return path
    if digest == blob.name:
        return path
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)
    hashes = f"its hash is {digest[:12]}..., announced was {blob.name[:12]}..."
    raise BrokenDownloadError(f"{what} is not what {constants.ENDPOINT} announces: {hashes}; nothing of it was kept")
