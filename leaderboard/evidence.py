"""What a result must carry to have a place on the board, and why one is refused.

The schema says what a result's keys may hold; here is what they must say together. Nothing of this proves that somebody
measured anything: `verify` does, by measuring again.
"""

from recipes.lineage import Ancestor, identity, known_runs, recipe_sha256
from zoo.errors import ZooError, quoted
from zoo.record import SEAL, SEALED_SINCE, content_sha256, when

from .records import parts
from .row import Result, name_of


def check_evidence(result: Result, origin: str) -> None:
    """Raise ZooError, with the reason, for a result that was changed by hand, or does not say where it comes from.

    The seal shows a change by anybody who does not know of it; who does can seal the changed result again.
    """
    if result.get("partial"):
        raise ZooError(f"{origin}: {result['images']} images are a part of the test set: measure without --limit")
    if SEAL not in result:
        raise ZooError(f"{origin}: without evidence: it has no {SEAL}, as what `measure` and training write has")
    if result[SEAL] != content_sha256(result):
        raise ZooError(f"{origin}: edited by hand: its {SEAL} is not that of its content; measure again")
    for place, part in {origin: result, **parts(origin, result)}.items():
        for key in ("command", "commit", "weights_sha256", *(["data_sha256"] if part["kind"] == "accuracy" else [])):
            if not part[key]:
                raise ZooError(f"{place}: without evidence: {key} is {part[key]!r}; measure in a checkout of the zoo")


def is_old(result: Result) -> bool:
    """Whether a result is from before there were seals, as some in the store are."""
    return SEAL not in result and when(result) < SEALED_SINCE


def check_hashes(result: Result, origin: str, others: dict[str, Result]) -> None:
    """Raise ZooError for a result whose weights or recipe are not those that its name stands for.

    Args:
        others: the results that are on the board, by where they stand.
    """
    name = name_of(result)
    weights, recipe = result["weights_sha256"], result.get("recipe_sha256")
    if result["kind"] == "measurement":
        before = tuple(Ancestor(**ancestor) for ancestor in result["started_from"])
        if recipe != (by_content := recipe_sha256(result["recipe"], before)):
            wrong = f"recipe_sha256 is {quoted(recipe)}, that of its recipe is {quoted(by_content)}"
            raise ZooError(f"{origin}: wrong hash: {wrong}")
    own = next((run.config for run in known_runs().values() if run.name == name), None)
    if own and weights != own["weights_sha256"]:
        # Another seed of its recipe; a graph does not know its recipe, but what is here of its weights may.
        recipes = {other.get("recipe_sha256") for other in others.values() if other["weights_sha256"] == weights}
        if identity(own) not in recipes | {recipe}:
            theirs = own["weights_sha256"]
            raise ZooError(
                f"{origin}: wrong hash: {name} comes with the zoo, with other weights ({theirs[:12]}..., not "
                f"{weights[:12]}...), and this is no other seed of its recipe: give it a tag of its own"
            )
    run = known_runs().get(weights)
    if run and run.name != name:
        raise ZooError(f"{origin}: wrong hash: these are the weights of {run.name}, not of {name}")
    if run and recipe is not None and recipe != identity(run.config):
        raise ZooError(f"{origin}: wrong hash: these are the weights of {name}, and this is not its recipe")
    images = _images_of(result)
    for place, other in others.items():
        if other["dataset"] == result["dataset"] and (theirs := _images_of(other)) and images and images != theirs:
            other_set = f"{place} has {_said(theirs)}, here it is {_said(images)}"
            raise ZooError(f"{origin}: other images under the name {result['dataset']}: {other_set}")
        if other["weights_sha256"] == weights and (called := name_of(other)) != name:
            raise ZooError(f"{origin}: wrong hash: these are the weights of {called} ({place}), not of {name}")


def _images_of(result: Result) -> tuple[str, int] | None:
    """The sha256 of the data set and the number of its test images that a result is of, where it says so."""
    of = [part for part in parts("", result).values() if part["split"] == "test"]
    return next(((found, part["images"]) for part in of if (found := part.get("data_sha256"))), None)


def _said(images: tuple[str, int]) -> str:
    return f"data_sha256 {images[0][:12]}... of {images[1]:,} images"
