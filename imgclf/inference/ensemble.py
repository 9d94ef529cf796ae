"""A trained classifier, ready to be asked."""

from collections.abc import Sequence

from imgclf.inference.predictor import Predictor


def ensemble(members: Sequence[Predictor]) -> Predictor:
    """One Predictor whose probabilities are the mean of its members'.

    Raises:
        ValueError: they differ in classes, in image shape, or in the ink they were trained on.
    """
    first = members[0]
    for number, member in enumerate(members[1:], 2):
        for what in ("class_names", "image_shape", "dark_ink", "scaled"):
            if getattr(member, what) != getattr(first, what):
                raise ValueError(
                    f"checkpoint {number} of the ensemble has {what.replace('_', ' ')} {getattr(member, what)}, the "
                    f"first {getattr(first, what)}: average networks that answer the same question"
                )
    if len(members) == 1:
        return first
    classifiers = [one for member in members for one in member.classifiers]
    return Predictor(classifiers, first.image_shape, first.batch_size, first.dark_ink, first.scaled)
