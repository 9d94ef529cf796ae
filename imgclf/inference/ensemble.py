"""Several trained classifiers that answer together."""

from collections.abc import Sequence

from imgclf.inference.predictor import Predictor


def ensemble(members: Sequence[Predictor]) -> Predictor:
    """Makes one Predictor: its probabilities are the mean of its members', its metadata and epoch the first one's.

    Raises:
        ValueError: the members differ in class names, image shape or preprocessing.

    Example:
        >>> ensemble([load("seed=0/best.ckpt"), load("seed=1/best.ckpt")]).predict("seven.png")
    """
    first = members[0]
    if len(members) == 1:
        return first
    for number, member in enumerate(members[1:], 2):
        for name in ("class_names", *first.preprocessing):
            own, expected = getattr(member, name), getattr(first, name)
            if own != expected:
                raise ValueError(
                    f"checkpoint {number} of the ensemble has the {name.replace('_', ' ')} {own}, the first one has "
                    f"{expected}: average networks that answer the same question"
                )
    classifiers = [classifier for member in members for classifier in member.classifiers]
    return Predictor(
        classifiers, **first.preprocessing, batch_size=first.batch_size, metadata=first.metadata, epoch=first.epoch
    )
