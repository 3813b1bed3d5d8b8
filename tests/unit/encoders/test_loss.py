"""Contrastive loss against CLIP's and against values worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional

from image_finder.components.encoders.loss import LogitScale, contrastive_loss


def test_with_one_caption_each_it_is_clips_symmetric_cross_entropy():
    torch.manual_seed(0)
    logits = 10 * torch.randn(6, 6)
    target = torch.arange(6)
    clip = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.t(), target)) / 2
    torch.testing.assert_close(contrastive_loss(logits, target), clip)


def test_its_gradient_is_clips_with_one_caption_each():
    torch.manual_seed(0)
    logits = (10 * torch.randn(6, 6)).requires_grad_()
    target = torch.arange(6)
    (ours,) = torch.autograd.grad(contrastive_loss(logits, target), logits)
    clip = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.t(), target)) / 2
    (theirs,) = torch.autograd.grad(clip, logits)
    torch.testing.assert_close(ours, theirs)


def test_two_captions_of_one_image_by_hand():
    # image 0 has captions 0 and 1, image 1 has caption 2; logits are logarithms of small numbers
    logits = torch.tensor([[2.0, 4.0, 1.0], [1.0, 1.0, 3.0]]).log()
    image_of_text = torch.tensor([0, 0, 1])
    text_to_image = -(math.log(2 / 3) + math.log(4 / 5) + math.log(3 / 4)) / 3
    # the other caption of image 0 is not in its denominator: 2 / (2 + 1) and 4 / (4 + 1)
    image_0 = -(math.log(2 / 3) + math.log(4 / 5)) / 2
    image_1 = -math.log(3 / (3 + 1 + 1))
    expected = (text_to_image + (image_0 + image_1) / 2) / 2
    assert contrastive_loss(logits, image_of_text).item() == pytest.approx(expected, rel=1e-6)


def image_to_text(logits, image_of_text):
    text_to_image = functional.cross_entropy(logits.t(), image_of_text)
    return 2 * contrastive_loss(logits, image_of_text) - text_to_image


def test_a_second_caption_like_the_first_leaves_its_own_images_part_as_it_was():
    torch.manual_seed(0)
    logits = torch.randn(4, 4)
    logits[1:, 0] = -torch.inf  # to the others the caption of image 0 is no negative, so only its own part may change
    once = image_to_text(logits, torch.arange(4))
    twice = image_to_text(torch.cat([logits, logits[:, :1]], dim=1), torch.tensor([0, 1, 2, 3, 0]))
    torch.testing.assert_close(twice, once)


def test_pushing_an_images_two_captions_apart_has_no_gradient():
    # the logit of caption 1 enters the part of caption 0 nowhere: d loss / d logit comes from its own pair alone
    logits = torch.tensor([[1.0, 50.0, 0.0], [0.0, 0.0, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(contrastive_loss(logits, torch.tensor([0, 0, 1])), logits)
    assert gradient[0, 0] < 0, "the worse caption is still pulled towards its image"
    assert gradient[0, 1] <= 0, "the better caption is not pushed away by the other one"


def test_a_single_image_gives_no_loss_and_a_finite_gradient():
    logits = torch.randn(1, 3, requires_grad=True)
    loss = contrastive_loss(logits, torch.zeros(3, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0
    assert gradient.tolist() == [[0, 0, 0]]


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[100.0, -100.0], [100.0, -100.0]], requires_grad=True)
    loss = contrastive_loss(logits, torch.tensor([0, 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_label_smoothing_spreads_a_texts_target_over_the_images():
    logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()
    p = torch.tensor([[0.75, 0.25], [0.5, 0.5]])  # of texts over images
    target = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    text_to_image = -(target * p.log()).sum(dim=1).mean().item()
    image_to_text = -(math.log(3 / 4) + math.log(1 / 2)) / 2
    loss = contrastive_loss(logits, torch.tensor([0, 1]), label_smoothing=0.2)
    assert loss.item() == pytest.approx((text_to_image + image_to_text) / 2, rel=1e-5)


def test_the_scale_starts_at_one_over_seven_hundredths():
    assert LogitScale()().item() == pytest.approx(14.2857, abs=1e-3)


@pytest.mark.parametrize("t", [4.7, 9.0, 1e6])
def test_the_clamped_scale_never_exceeds_a_hundred(t):
    scale = LogitScale()
    with torch.no_grad():
        scale.t.fill_(t)
    scale.clamp_()
    assert scale().item() <= 100
    assert scale().item() == pytest.approx(100, rel=1e-6)


def test_a_clamped_scale_still_learns():
    scale = LogitScale()
    with torch.no_grad():
        scale.t.fill_(7.0)
    scale.clamp_()
    scale().backward()
    assert scale.t.grad.item() == pytest.approx(100, rel=1e-5)
    torch.optim.SGD(scale.parameters(), lr=0.001).step()
    assert scale().item() == pytest.approx(100 * math.exp(-0.1), rel=1e-4)
