import pytest

from imgclf.checkpoints.files import METADATA_KEY
from imgclf.checkpoints.metadata import build_metadata
from imgclf.data.digits import Digits
from imgclf.data.noisy import NoisyImages
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN


@pytest.fixture
def content():
    """The content of a small checkpoint."""
    classifier = Classifier(CNN(channels=[4]), Digits.class_names, [0.2], [0.4])
    metadata = build_metadata(classifier, NoisyImages(base="digits", variation="rot"))
    return {"state_dict": classifier.state_dict(), "epoch": 2, METADATA_KEY: metadata}
