import torch

from imgclf.data.datasets import ImageDataset, fit_in_box


def test_a_batch_is_one_indexing_operation():
    images = ImageDataset(
        torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), torch.tensor([7, 3, 5])
    )
    batch, labels = images[torch.tensor([2, 0])]
    assert labels.tolist() == [5, 7]
    assert batch.flatten().tolist() == [5, 7]
    assert len(images) == 3


def test_examples_show_every_class():
    labels = torch.tensor([2] * 30 + [0] * 5 + [1] * 30)
    images = ImageDataset(torch.arange(65, dtype=torch.uint8).view(65, 1, 1, 1), labels)
    shown, classes = images.examples(30)
    assert classes.tolist() == [0] * 5 + [1] * 10 + [2] * 10
    assert labels[shown.flatten().long()].tolist() == classes.tolist()
    assert torch.equal(images.examples(30)[0], shown)
    assert len(images.examples(4)[1]) == 4


def test_fit_in_box_keeps_a_flat_image_flat():
    boxed = fit_in_box(torch.full((1, 1, 8, 8), 200, dtype=torch.uint8), 20, 28)
    assert boxed.shape == (1, 1, 28, 28)
    assert (boxed[..., 4:24, 4:24] == 200).all()
    assert int(boxed.sum()) == 200 * 400
