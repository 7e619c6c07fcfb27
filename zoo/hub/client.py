"""Between this disk and a Hub: push a run, pull a repository, fetch a checkpoint, through huggingface_hub's client.

All files are of one commit: no mixture of two versions. The cache, trying again and going on with a download that was
cut off are the client's own; what it gives up on is one sentence here.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub import errors as hub_errors
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id

from ..checkpoint import CONFIG, WEIGHTS, is_pickle, read_checkpoint
from ..checkpoint.config import check_config
from ..checkpoint.weights import starts_as_pickle
from ..commands import ORGANISATION
from ..errors import ZooError, one_line
from ..files import read_json, user_path
from ..names import PUBLISHED
from .release import RESULT, RESULTS, card, collect

# Separators and drives of other systems; what is hidden from the eye is none of a name, either.
_NO_NAME = {"", ".", "..", ".git"}
_SEPARATORS = re.compile(r"[\\:]")


class Published(NamedTuple):
    """Where one checkpoint is: the repository, its commit, and the sha256 of the weights file there."""

    repo: str
    revision: str
    sha256: str

    @property
    def hub_id(self) -> str:
        """REPO@REVISION, as timm and `zoo.create_model("hf-hub:...")` take it."""
        return f"{self.repo}@{self.revision}"


class Pushed(NamedTuple):
    """What `push` did: the repository, its commit, whether that commit is new, and the entry of published.json."""

    repo: str
    commit: str
    changed: bool
    published: dict[str, dict[str, str]]


class Plan(NamedTuple):
    """What `push` publishes: the repository, its files with the card, the license that the card says; the name of the
    release, architecture.tag, and the sha256 of its weights."""

    repo: str
    files: dict[str, bytes]
    license: str | None
    name: str
    weights_sha256: str


class Pulled(NamedTuple):
    """What `pull` did: the directory, the commit it holds, and the pickles of the repository that it left there."""

    directory: Path
    commit: str
    left_out: list[str]


@cache
def published() -> dict[str, Published]:
    """Returns the zoo's checkpoints on a Hub, from `architecture.tag` to where it is: weights/published.json."""
    return {name: Published(**entry) for name, entry in read_json(PUBLISHED).items()}


def push(
    run: str | os.PathLike[str],
    repo: str | None = None,
    *,
    private: bool = False,
    onnx: Sequence[str | os.PathLike[str]] = (),
    results: Sequence[str | os.PathLike[str]] = (),
    license: str | None = None,
) -> Pushed:
    """Publishes a run as one commit: weights, config, recipe, log, results, ONNX files and a model card.

    The commit is made of all files or of none, on top of the commit that was looked at; what has not changed is not
    sent again, and if nothing has, there is no commit. ONNX and result files of earlier, other weights leave with it.

    Args:
        run, repo, onnx, results, license: see `plan`. The repository is made if it is not there.
        private: make it private; an existing public one is refused.

    Raises:
        ZooError: as `plan`; no access, no connection, no answer.
    """
    repo, files, _, name, sha256 = plan(run, repo, onnx=onnx, results=results, license=license)
    api = HfApi(library_name="snn-zoo")
    with _in_one_sentence(repo):
        if not api.repo_exists(repo):
            api.create_repo(repo, private=private or None, exist_ok=True)
        before = api.model_info(repo, files_metadata=True)
        if private and not before.private:
            raise ZooError(f"{repo} exists and is public: make it private in its settings, or push without --private")
        operations: list[Any] = [CommitOperationAdd(file, data) for file, data in sorted(files.items())]
        operations += [CommitOperationDelete(file) for file in _outdated(before, files, sha256)]
        done = api.create_commit(repo, operations, commit_message=name, parent_commit=before.sha)
    entry = {"repo": repo, "revision": str(done.oid), "sha256": sha256}
    return Pushed(repo, str(done.oid), done.oid != before.sha, {name: entry})


def plan(
    run: str | os.PathLike[str],
    repo: str | None = None,
    *,
    onnx: Sequence[str | os.PathLike[str]] = (),
    results: Sequence[str | os.PathLike[str]] = (),
    license: str | None = None,
) -> Plan:
    """Reads and checks what `push` publishes; nothing is asked or sent.

    Args:
        run, onnx, results: see `zoo.hub.release.collect`.
        repo: ORG/NAME; ORGANISATION/architecture.tag by default.
        license: what the card says, an identifier of the Hub's; by default what config.json does, or else nothing.

    Raises:
        ZooError: a file is missing, broken or of other weights; a bad name or license.
    """
    release = collect(user_path(run), [user_path(path) for path in onnx], [user_path(path) for path in results])
    stated = release.config["pretrained_cfg"].get("license")
    license = license or stated
    if license is not None and not (isinstance(license, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license)):
        raise ZooError(f"no license of the Hub's is called {license!r}: give apache-2.0, mit, cc-by-4.0, other ...")
    if stated not in (None, license):
        raise ZooError(f"{run}'s config.json says license {stated!r}: the card cannot say {license!r}")
    repo, revision = split_revision(repo or f"{ORGANISATION}/{release.name}")
    if revision:
        raise ZooError(f"push goes to the default branch of {repo}: leave @{revision} out")
    files = release.files | {"README.md": card(release, repo, license).encode()}
    return Plan(repo, files, license, release.name, release.config["weights_sha256"])


def _outdated(info: ModelInfo, files: dict[str, bytes], weights_sha256: str) -> list[str]:
    """Files of a repository that speak of the weights that it holds now, if these are about to be replaced."""
    siblings = info.siblings or []
    if any(s.rfilename == WEIGHTS and s.lfs and s.lfs.sha256 == weights_sha256 for s in siblings):
        return []
    old = [s.rfilename for s in siblings if s.rfilename not in files]
    return [name for name in old if name.endswith(".onnx") or name == RESULT or name.startswith(RESULTS)]


def pull(name: str, directory: str | os.PathLike[str] | None = None, *, revision: str | None = None) -> Pulled:
    """Copies a published checkpoint with all its files into a directory, which is whole or absent afterwards.

    Args:
        name: ORG/NAME[@REVISION].
        directory: must not exist, or be empty; NAME in the working directory by default.
        revision: a branch, a tag or a commit, if `name` has none.

    Raises:
        ZooError: see `fetch_checkpoint`; also a file name that leads out of the directory, a directory that is in use,
            or a repository without a sound checkpoint.
    """
    repo, revision = split_revision(name, revision)
    out = user_path(directory if directory is not None else repo.split("/")[1])
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ZooError(f"{out} exists already: remove it, or name another directory with -o")
    if out.resolve() == Path.cwd():
        raise ZooError(f"{out} is the working directory, and would be replaced: name a new one with -o")
    with _in_one_sentence(repo, revision):
        info = HfApi().model_info(repo, revision=revision)
        commit, names = str(info.sha), [sibling.rfilename for sibling in info.siblings or []]
        for file in names:
            check_name(file, repo)
        left_out = [file for file in names if is_pickle(file)]
        folder = fetch_checkpoint(f"{repo}@{commit}")
        try:
            read_checkpoint(folder)
        except ZooError as error:
            raise ZooError(str(error).replace(str(folder), repo)) from error
        whole_out = out.resolve()
        whole_out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{whole_out.name}.", dir=whole_out.parent) as temporary:
            whole = Path(temporary) / whole_out.name  # for itself: the folder around it is for its owner's eyes only
            for file in (file for file in names if not is_pickle(file)):
                (whole / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(hf_hub_download(repo, file, revision=commit, library_name="snn-zoo"), whole / file)
                if starts_as_pickle(whole / file):
                    (whole / file).unlink()
                    left_out.append(file)
            os.replace(whole, whole_out)
    return Pulled(out, commit, left_out)


def check_name(file: str, repo: str) -> None:
    """Raises ZooError if the name of a file in a repository would lead anywhere but below the repository's folder."""
    parts = {part.strip().lower() for part in file.split("/")}
    if _NO_NAME & parts or _SEPARATORS.search(file) or not file.isprintable():
        raise ZooError(f"{repo} holds a file with a forbidden name: {file!r}; nothing of it was written")


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """ORG/NAME[@REVISION] in its two parts, the second None for the default branch; raises ZooError for others."""
    repo, sign, given = name.partition("@")
    if sign and (not given or (revision and revision != given)):
        raise ZooError(f"{name!r} with the revision {revision!r}: name one revision, as in ORG/NAME@v1")
    with contextlib.suppress(hub_errors.HFValidationError):
        validate_repo_id(repo)
        if repo.count("/") == 1:
            return repo, given or revision or None
    raise ZooError(f"{repo!r} is no repository: expected ORG/NAME, of letters, digits, '-', '_' and '.'")


def fetch_checkpoint(name: str, *, cache_dir: str | Path | None = None) -> Path:
    """Fetches ORG/NAME[@REVISION] of the Hub, a branch, a tag or a commit, if need be, and returns the directory in the
    cache, by default huggingface_hub's own, that holds it. Out of reach, that is what the cache last saw of that name.

    Raises:
        ZooError: no such repository, revision or file; no access; no connection and nothing in the cache.
    """
    repo, revision = split_revision(name)
    how: dict[str, Any] = {"cache_dir": cache_dir, "library_name": "snn-zoo"}
    with _in_one_sentence(repo, revision, cache_dir):
        folder = Path(hf_hub_download(repo, CONFIG, revision=revision, **how)).parent
        # Looked at before the weights: it may be another library's, with gigabytes beside it.
        check_config(read_json(folder / CONFIG), f"{repo}/{CONFIG}")
        hf_hub_download(repo, WEIGHTS, revision=folder.name, **how)  # of the same commit, whatever is pushed meanwhile
    return folder


@contextlib.contextmanager
def _in_one_sentence(repo: str, revision: str | None = None, cache_dir: str | Path | None = None) -> Iterator[None]:
    """Raises what goes wrong with the Hub inside the block as a ZooError that says what to do about it."""
    try:
        yield
    except ZooError:
        raise
    except (LookupError, TypeError, AttributeError) as error:  # what the client makes of an answer of another form
        raise ZooError(f"{constants.ENDPOINT} does not answer as a Hub does: {one_line(error)} ({repo})") from error
    except (hub_errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, hub_errors.HTTPError):
            cause = cause.__cause__  # what stopped the client, behind its own wrapping
        cache = str(cache_dir or constants.HF_HUB_CACHE)
        raise ZooError(_sentence(cause, f"{repo}@{revision}" if revision else repo, cache)) from error


def _sentence(error: BaseException, at: str, cache: str) -> str:
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        return f"offline (HF_HUB_OFFLINE is set), and this takes the Hub: {at} is not in the cache {cache}; unset it"
    if isinstance(error, hub_errors.HfHubHTTPError):
        status, said = error.response.status_code, one_line(error)
        if status in (409, 412):
            return f"{at} has changed meanwhile: start again"
        token = "; HF_TOKEN, or `hf auth login`, gives the token" if status in (401, 403, 404) else ""
        return f"{constants.ENDPOINT} answers {status} for {at}: {said}{token}"
    if isinstance(error, hub_errors.HTTPError):
        return f"cannot reach {constants.ENDPOINT} for {at}: {one_line(error) or type(error).__name__}"
    return f"{at}: {one_line(error)}"
