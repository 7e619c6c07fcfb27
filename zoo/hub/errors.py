"""What goes wrong between here and a Hub, in one sentence each; what may pass by itself is tried again first."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from huggingface_hub import constants, errors, get_token
from huggingface_hub.utils import validate_repo_id

from ..errors import ZooError, one_line

T = TypeVar("T")
# Seconds between our tries; below them, the client tries some of its requests again by itself.
_WAITS = (1.0, 3.0)
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class _Problem(NamedTuple):
    sentence: str
    passing: bool = False


class BrokenDownloadError(Exception):
    """A file arrived, but it is not the one that the Hub announced; the message is the sentence for the user."""


_FAILURES = (errors.HTTPError, OSError, ValueError, RuntimeError, errors.EntryNotFoundError, BrokenDownloadError)


def check_repo(repo: str) -> str:
    """The name of a repository, as it came.

    Raises:
        ZooError: it is not of the form ORG/NAME.
    """
    with contextlib.suppress(errors.HFValidationError):
        validate_repo_id(repo)
        if repo.count("/") == 1:
            return repo
    raise ZooError(f"{repo!r} is no repository: expected ORG/NAME, of letters, digits, '-', '_' and '.'")


def ask(
    repo: str,
    action: Callable[[], T],
    revision: str | None = None,
    *,
    cached: bool = True,
    cache_dir: str | Path | None = None,
) -> T:
    """The result of `action`, which talks to the Hub about `repo`; tried again where the failure may pass.

    Args:
        cached: whether the cache could have spared the question.
        cache_dir: instead of huggingface_hub's own.

    Raises:
        ZooError: it failed, with what to do about it.
    """
    cache = str(cache_dir or constants.HF_HUB_CACHE)
    for wait in (*_WAITS, None):
        try:
            return action()
        except ZooError:
            raise
        except errors.OfflineModeIsEnabled as error:
            needed = f"offline (HF_HUB_OFFLINE is set), and this takes the Hub itself: unset it ({repo})"
            raise ZooError(_explain(error, repo, revision, cache).sentence if cached else needed) from error
        except (LookupError, TypeError, AttributeError) as error:  # what the client makes of an answer of another form
            raise ZooError(f"{constants.ENDPOINT} does not answer as a Hub does: {one_line(error)} ({repo})") from error
        except _FAILURES as error:
            problem = _explain(error, repo, revision, cache)
            if wait is None or not problem.passing:
                raise ZooError(problem.sentence) from error
        time.sleep(wait)
    raise AssertionError("unreachable")


def _explain(error: BaseException, repo: str, revision: str | None, cache: str) -> _Problem:
    hub = constants.ENDPOINT
    at = f"{repo}@{revision}" if revision else repo
    if isinstance(error, BrokenDownloadError):
        return _Problem(str(error), passing=True)
    if isinstance(error, errors.OfflineModeIsEnabled):
        missing = f"offline (HF_HUB_OFFLINE is set) and {at} is not in the cache {cache}"
        return _Problem(f"{missing}: unset it, or fetch it once while online")
    if isinstance(error, errors.RevisionNotFoundError):
        return _Problem(f"{repo} has no revision {revision or 'main'!r} on {hub}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return _Problem(_not_there(repo))
    if isinstance(error, errors.LocalEntryNotFoundError):
        # The client gave up after tries of its own; what stopped it is the cause.
        if error.__cause__ is not None:
            return _explain(error.__cause__, repo, revision, cache)._replace(passing=False)
        return _Problem(f"{at} is not in the cache {cache}, and {hub} gives no answer")
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_status(error, repo)
    if isinstance(error, errors.EntryNotFoundError):
        return _Problem(f"{at} lacks a file: {one_line(error)}")
    if isinstance(error, errors.HTTPError):
        return _Problem(f"cannot reach {hub}: {one_line(error) or type(error).__name__}", passing=True)
    if error.__cause__ is not None:  # the client's wrapping of a failed upload
        return _explain(error.__cause__, repo, revision, cache)._replace(passing=False)
    if isinstance(error, OSError) and error.errno is None:  # the client's own checks, of a size for example
        return _Problem(f"{at}: {one_line(error)}", passing=True)
    return _Problem(f"{at}: {one_line(error)}")


def _explain_status(error: errors.HfHubHTTPError, repo: str) -> _Problem:
    hub, status = constants.ENDPOINT, error.response.status_code
    if isinstance(error, errors.EntryNotFoundError):
        return _Problem(f"{repo} has no file {error.response.url.path.rpartition('/')[2]!r} on {hub}")
    if status == 401:
        refused = f"{hub} does not accept the token in use: renew it (HF_TOKEN, or `hf auth login`)"
        return _Problem(refused if get_token() else _not_there(repo))
    if status == 403:
        return _Problem(f"{hub} forbids this with {repo}: the token in use lacks the right to it")
    if status in (409, 412):
        return _Problem(f"{repo} has changed meanwhile: start again", passing=True)
    if status in _PASSING:
        return _Problem(f"{hub} answers {status} for {repo}, again and again: try later", passing=True)
    return _Problem(f"{hub} answers {status} for {repo}: {one_line(error)}")


def _not_there(repo: str) -> str:
    # A Hub does not tell strangers whether a private repository exists.
    if get_token():
        return f"{repo} is not on {constants.ENDPOINT}, or the owner of the token in use may not see it"
    return f"{repo} is not on {constants.ENDPOINT}, or it takes a token: set HF_TOKEN, or run `hf auth login`"
